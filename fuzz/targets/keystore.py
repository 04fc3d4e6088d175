"""Sealed keystores: what a thief may have changed and, behind the seal, what another release may have written.

The first byte says what the rest is: a sealed keystore; a header's label; or a payload of format 2 or 1. The last three
are sealed here under the right key. A keystore that opens without that is one that was sealed, byte for byte.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import itertools
import json
import random
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ensconce.errors import IntegrityError
from ensconce.keys.header import Header, Wrapped, parse_header, passphrase_cost
from ensconce.keys.keystore import KeyEntry
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.sealed import Contents, Record, open_sealed, seal
from ensconce.keys.unlock import SealKeys, Sort
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_SEALED, _LABEL, _PAYLOAD, _FIRST_PAYLOAD = 0, 1, 2, 3
_SALT = hashlib.sha256(b"fuzzing: salt").digest()
_KEYS = SealKeys(SecretBuffer.of(hashlib.sha512(b"fuzzing: keystore").digest()))
_NONCE = bytes(12)


def check(data: bytes) -> bool:
    """Open what the first byte says; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort == _LABEL:
        fixed = Header(Sort.VAULT, None, _SALT).to_bytes()[:-4]
        rest = fixed + len(rest).to_bytes(4, "big") + rest + bytes(12 + 32 + 16)
    if sort >= _PAYLOAD:
        rest = _sealed(Header(Sort.KEY_FILE, None, _SALT, version=2 if sort == _PAYLOAD else 1).to_bytes(), rest)
    header = attempt(lambda: parse_header(rest), IntegrityError)
    if isinstance(header, Refused):
        return False
    holds(rest.startswith(header.to_bytes()), "a header with two spellings")
    opened = attempt(lambda: open_sealed(rest, header, iter([_KEYS])), IntegrityError)
    if isinstance(opened, Refused):
        return sort == _LABEL
    holds(sort >= _PAYLOAD or rest in _files(), "a keystore opens that nobody sealed")
    with opened[1] as contents:
        _check_contents(header, contents)
    return True


def _check_contents(header: Header, contents: Contents) -> None:
    if contents.generation + 1 == 1 << 53:
        return  # nobody will have written so often
    # As a writer does it: each write counts, and the first one of a keystore of format 1 makes it one of format 2.
    written = Contents(contents.identity, contents.generation + 1, contents.records)
    again = seal(header, _KEYS, written)
    read = parse_header(again)
    with open_sealed(again, read, iter([_KEYS]))[1] as other:
        holds((other.identity, other.generation) == (written.identity, written.generation), "another keystore")
        holds(other.entries() == contents.entries(), "a round trip changes the keys")
        for key_id, record in contents.records.items():
            secret, kept = record.secret, other.records[key_id].secret
            holds((secret is None) == (record.entry.retired is not None), "live without a secret, or the reverse")
            holds((None if secret is None else bytes(secret)) == (None if kept is None else bytes(kept)), "a secret")


def _sealed(start: bytes, payload: bytes) -> bytes:
    associated = start + _NONCE
    associated += hmac.digest(bytes(_KEYS.confirm), associated, "sha256")
    return associated + AESGCM(_KEYS.seal).encrypt(_NONCE, payload, associated)


@functools.cache
def _files() -> frozenset[bytes]:
    """Keystores that were sealed; the same each time."""
    numbers = itertools.count()
    stream = mock.patch("secrets.token_bytes", lambda size: hashlib.shake_256(b"%d" % next(numbers)).digest(size))
    live = Record(KeyEntry("model/digits/1", "wrap", world.NOW, None), bytes(range(16)))
    retired = Record(KeyEntry("model/digits/2", "wrap", world.NOW, world.NOW + 1), None)
    wrapped = Wrapped(deployment="digits.example.test", wrapped="vault:v1:AAAA")
    with stream:
        return frozenset(
            seal(header, _KEYS, Contents("ab" * 32, 7, {each.entry.key_id: each for each in records}))
            for header, records in (
                (Header(Sort.KEY_FILE, None, _SALT), [live, retired]),
                (Header(Sort.PASSPHRASE, passphrase_cost(), _SALT), []),
                (Header(Sort.VAULT, None, _SALT, wrapped), [live]),
            )
        )


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    if not data or data[0] == _SEALED or rng.random() < 0.05:
        return havoc(data)
    if data[0] == _PAYLOAD:
        size = int.from_bytes(data[1:5], "big")
        index = _by_tree(data[5 : 5 + size], rng, havoc)
        return data[:1] + len(index).to_bytes(4, "big") + index + data[5 + size :]
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree, sort_keys=True, separators=(",", ":")).encode("ascii"))


def seeds() -> dict[str, bytes]:
    """Keystores of several sorts, labels of both kinds, and payloads of both formats."""
    made = {f"good-sealed-{number}": b"\x00" + data for number, data in enumerate(sorted(_files()))}
    labels = {
        "wrapped": {"deployment": "digits.example.test", "wrapped": "vault:v1:AAAA"},
        "shared": {"deployment": "a", "created": world.NOW, "identifier": 7, "shares": 3, "threshold": 2},
    }
    for name, label in labels.items():
        text = json.dumps(label, sort_keys=True, separators=(",", ":")).encode()
        made[f"{'good-' if name == 'wrapped' else ''}label-{name}"] = b"\x01" + text
    made["label-spaced"] = b"\x01" + json.dumps(labels["wrapped"], sort_keys=True).encode()
    index = json.dumps(
        {
            "generation": 7,
            "identity": "ab" * 32,
            "keys": [
                {"created": 1, "id": "model/a/1", "kind": "wrap", "retired": None, "size": 16},
                {"created": 1, "id": "model/a/2", "kind": "wrap", "retired": 2, "size": 0},
            ],
        }
    ).encode()
    made["good-payload"] = b"\x02" + len(index).to_bytes(4, "big") + index + bytes(16)
    secret = base64.b64encode(bytes(16)).decode()
    first = {
        "keys": {
            "model/a/1": {"kind": "wrap", "created": 1, "retired": None, "secret": secret},
            "model/a/2": {"kind": "wrap", "created": 1, "retired": 2, "secret": None},
        }
    }
    made["good-first-payload"] = b"\x03" + json.dumps(first).encode()
    return made


TARGET = Target(
    "keystore", check, seeds, _mutate, max_size=4096, words=(b"ENSCONCE-KEYS\x00", b"\x00\x02", b"\x00\x01")
)
