"""The audit log: an entry has one spelling and its own hash, and a head is the owner's.

The first byte says what the rest is: an entry; a head; or what a head says, signed here. The two hashes and signatures
keep out all that was not written by the owner, so whatever is accepted must be one of those that were, or be signed
here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from typing import Any

from ensconce.audit.entry import Entry, parse_entry, sign_entry, signature_is_good, storable
from ensconce.audit.head import Head, parse_head, sign_head
from ensconce.errors import IntegrityError
from ensconce.times import utc_text
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_ENTRY, _HEAD = 0, 1


def check(data: bytes) -> bool:
    """Read an entry or a head; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort == _HEAD:
        return _check_head(rest)
    if sort == _ENTRY:
        return _check_entry(rest)
    return _check_entry(_rehashed(rest))


def _check_entry(line: bytes) -> bool:
    entry = attempt(lambda: parse_entry(line, 0), IntegrityError)
    if isinstance(entry, Refused):
        return False
    holds(entry.to_line() == line, "an entry with two spellings")
    holds(json.loads(line) == json.loads(json.dumps(entry.to_json_object())), "another entry to another reader")
    holds(not signature_is_good(entry, _PUBLIC) or line in _lines(), "an entry that nobody signed")
    return True


def _check_head(data: bytes) -> bool:
    head = attempt(lambda: parse_head(data, _PUBLIC), IntegrityError)
    if isinstance(head, Refused):
        return False
    holds(data in [head.to_bytes() for head in _heads()], "a head that nobody signed, or that has two spellings")
    return True


def _rehashed(line: bytes) -> bytes:
    """The line with the hash that it should have, written canonically, so that it gets past both."""
    try:
        value = json.loads(line)
        content = {name: value[name] for name in ("seq", "time", "event", "fields", "previous")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        value["hash"] = hashlib.sha256(b"ensconce/audit/entry/1\x00" + text).hexdigest()
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


_PUBLIC = world.AUDIT_KEY.public_key()


@functools.cache
def _entries() -> list[Entry]:
    fields: list[dict[str, Any]] = [
        {},
        {"key_id": "model/digits/1", "count": 3, "debug": False, "models": ["a", "b"], "empty": []},
        {"found": "\u202e\0\n\ud800é", "most": 2**53 - 1, "least": -(2**53) + 1, "long": "x" * 1100},
    ]
    events = ("log.begun", "key.released", "evidence.refused")
    return [
        sign_entry(0, utc_text(world.NOW), event, storable(event, said), bytes(32), world.AUDIT_KEY)
        for event, said in zip(events, fields, strict=True)
    ]


@functools.cache
def _lines() -> frozenset[bytes]:
    return frozenset(entry.to_line() for entry in _entries())


@functools.cache
def _heads() -> list[Head]:
    return [
        sign_head(size, hashlib.sha256(b"root").digest(), bytes(32), utc_text(world.NOW), world.AUDIT_KEY)
        for size in (0, 1, 2**40)
    ]


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    if not data or rng.random() < 0.05:
        return havoc(data)
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def seeds() -> dict[str, bytes]:
    """Entries with every kind of field, and heads."""
    made = {f"good-entry-{number}": b"\x00" + entry.to_line() for number, entry in enumerate(_entries())}
    made |= {f"good-rehashed-{number}": b"\x02" + entry.to_line() for number, entry in enumerate(_entries())}
    return made | {f"good-head-{head.size}": b"\x01" + head.to_bytes() for head in _heads()}


TARGET = Target("audit", check, seeds, _mutate, max_size=8192)
