"""One entry of the log: its canonical bytes, its hash, its signature. No file system here.

An entry is one line: canonical JSON (keys sorted, no spaces, ASCII with ``\\u`` escapes) of exactly ``event``,
``fields``, ``hash``, ``previous``, ``seq``, ``signature`` and ``time``, and a newline. ``hash`` is SHA-256 over a
domain and the same object without ``hash`` and ``signature``; ``previous`` is the ``hash`` of the entry before. The
whole format is in ``docs/reference/audit-log.md``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ensconce import strict_json
from ensconce.audit.merkle import leaf_hash
from ensconce.errors import InputError, IntegrityError

__all__ = [
    "GENESIS",
    "MAX_FIELDS",
    "MAX_FRAME",
    "MAX_LINE",
    "MAX_LIST",
    "MAX_TEXT",
    "Entry",
    "FieldValue",
    "StoredValue",
    "canonical",
    "damaged",
    "parse_entry",
    "sign_entry",
    "signature_is_good",
    "storable",
]

Scalar = str | int | bool
FieldValue = str | int | bool | list[str] | list[int] | list[bool] | tuple[Scalar, ...]
"""What a caller may record: text, a whole number, a truth value, or a list of these."""
StoredValue = str | int | bool | tuple[Scalar, ...]

MAX_LINE = 1024 * 1024
"""Longest line in bytes, newline included."""
MAX_FRAME = 1024
"""More than a line is ever longer than its fields, in bytes: the other members have at most some 500."""
MAX_TEXT = 1024
"""Longest text in characters; what is longer is cut, and says so."""
MAX_LIST = 256
MAX_FIELDS = 32
GENESIS = bytes(32)
"""``previous`` of the first entry."""

_ENTRY_DOMAIN = b"ensconce/audit/entry/1\x00"
_SIGNATURE_DOMAIN = b"ensconce/audit/entry-signature/1\x00"
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,31}(?:\.[a-z][a-z0-9_]{0,31}){0,3}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TIME = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z")
_HEX = re.compile(r"[0-9a-f]{64}")
# RFC 7493 (I-JSON): what every reader of JSON can hold without loss.
_MAX_INT = 2**53 - 1
_KEYS = {"event", "fields", "hash", "previous", "seq", "signature", "time"}


@dataclass(frozen=True)
class Entry:
    """An entry of the log.

    Attributes:
        seq: its number; the first is 0.
        time: what the writer's clock said, RFC 3339 UTC to the second, e.g. ``2026-01-31T12:00:00Z``; informative only,
            the order is that of ``seq``.
        event: what happened, e.g. ``key.released``.
        fields: the event's particulars.
        previous: hash of the entry before, 32 bytes; zeros for the first.
        hash: hash of this entry, 32 bytes.
        signature: Ed25519 over the hash, 64 bytes.
    """

    seq: int
    time: str
    event: str
    fields: Mapping[str, StoredValue]
    previous: bytes
    hash: bytes
    signature: bytes

    def to_line(self) -> bytes:
        """The entry as stored, newline included."""
        return canonical(self.to_json_object()) + b"\n"

    def leaf_hash(self) -> bytes:
        """The entry's leaf in the Merkle tree: over the line as stored, without its newline."""
        return leaf_hash(self.to_line()[:-1])

    def to_json_object(self) -> dict[str, object]:
        """The entry as JSON types."""
        return {
            **_content(self.seq, self.time, self.event, self.fields, self.previous),
            "hash": self.hash.hex(),
            "signature": base64.b64encode(self.signature).decode(),
        }


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, and nothing but printable ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def storable(event: str, fields: Mapping[str, object]) -> dict[str, StoredValue]:
    """What a caller wants recorded, as the log stores it.

    Text longer than ``MAX_TEXT`` is cut, because it often comes from a stranger, whose refusal must not go unrecorded
    for being long; it ends with the number of characters that it had. A list is never cut, lest a released key be
    missing.

    Raises:
        InputError: ``audit.event``, ``audit.field`` (a name, type, number or size that the log does not take).
    """
    if _EVENT.fullmatch(event) is None:
        raise InputError("audit.event", "this is not a name of an event", found=ascii(event)[:100], rule=_EVENT.pattern)
    stored = _storable(fields)
    size = len(canonical(stored)) + MAX_FRAME
    if size > MAX_LINE:
        raise InputError("audit.field", "the entry is too large", found=f"{size} bytes", rule=f"at most {MAX_LINE}")
    return stored


def sign_entry(
    seq: int, time: str, event: str, stored: Mapping[str, StoredValue], previous: bytes, key: Ed25519PrivateKey
) -> Entry:
    """The entry for what :func:`storable` made."""
    digest = _hash(seq, time, event, stored, previous)
    return Entry(seq, time, event, stored, previous, digest, key.sign(_SIGNATURE_DOMAIN + digest))


def parse_entry(line: bytes, seq: int) -> Entry:
    """Parse one line strictly and check its own hash; the chain and the signature are the caller's.

    Args:
        line: the line with its newline.
        seq: the number that the entry must have, which is also how errors name it.

    Raises:
        IntegrityError: ``audit.entry``, ``audit.sequence``, ``audit.hash``.
    """
    try:
        entry = _parse(line)
    except (ValueError, TypeError, InputError):
        entry = None
    # Re-encoding leaves no second spelling of the same entry, hence no byte that may be changed unnoticed.
    if entry is None or entry.to_line() != line:
        raise damaged("audit.entry", seq, "is not an entry, or was changed", ascii(line[:60]))
    if entry.seq != seq:
        raise damaged("audit.sequence", seq, "is missing, or out of its place", f"entry {entry.seq} in its place")
    if entry.hash != _hash(entry.seq, entry.time, entry.event, entry.fields, entry.previous):
        raise damaged("audit.hash", seq, "was changed: its content does not have its hash", entry.hash.hex())
    return entry


def signature_is_good(entry: Entry, key: Ed25519PublicKey) -> bool:
    """Whether the log's writer signed this entry, and with it every entry before it."""
    try:
        key.verify(entry.signature, _SIGNATURE_DOMAIN + entry.hash)
    except InvalidSignature:
        return False
    return True


def _hash(seq: int, time: str, event: str, fields: Mapping[str, StoredValue], previous: bytes) -> bytes:
    return hashlib.sha256(_ENTRY_DOMAIN + canonical(_content(seq, time, event, fields, previous))).digest()


def _content(seq: int, time: str, event: str, fields: Mapping[str, StoredValue], previous: bytes) -> dict[str, object]:
    return {"seq": seq, "time": time, "event": event, "fields": dict(fields), "previous": previous.hex()}


def _parse(line: bytes) -> Entry | None:
    if not line.endswith(b"\n") or len(line) > MAX_LINE:
        return None
    value = strict_json.loads(line)
    if not isinstance(value, dict) or set(value) != _KEYS:
        return None
    seq, time, event, fields = value["seq"], value["time"], value["event"], value["fields"]
    if not isinstance(fields, dict) or type(seq) is not int or not 0 <= seq <= _MAX_INT:
        return None
    texts_are_good = (
        _TIME.fullmatch(time)
        and _EVENT.fullmatch(event)
        and _HEX.fullmatch(value["previous"])
        and _HEX.fullmatch(value["hash"])
    )
    if not texts_are_good:
        return None
    try:
        signature = base64.b64decode(value["signature"], validate=True)
    except binascii.Error:
        return None
    previous, digest = bytes.fromhex(value["previous"]), bytes.fromhex(value["hash"])
    return Entry(seq, time, event, _storable(fields), previous, digest, signature)


def _storable(fields: Mapping[str, object]) -> dict[str, StoredValue]:
    if len(fields) > MAX_FIELDS:
        raise _bad_field(f"{len(fields)} fields", f"at most {MAX_FIELDS} fields")
    stored: dict[str, StoredValue] = {}
    for name, value in fields.items():
        if _NAME.fullmatch(name) is None:
            raise _bad_field(f"a field named {ascii(name)[:100]}", _NAME.pattern)
        if isinstance(value, list | tuple):
            if len(value) > MAX_LIST:
                raise _bad_field(f"{name}, a list of {len(value)}", f"at most {MAX_LIST} items")
            stored[name] = tuple(_storable_scalar(name, item) for item in value)
        else:
            stored[name] = _storable_scalar(name, value)
    return stored


def _storable_scalar(name: str, value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > _MAX_INT:
            raise _bad_field(f"{name}, a number beyond 2**53", "whole numbers below 2**53")
        return int(value)
    if isinstance(value, str):
        if len(value) <= MAX_TEXT:
            return str.__str__(value)
        mark = f"... ({len(value)} characters)"
        return value[: MAX_TEXT - len(mark)] + mark
    raise _bad_field(f"{name}, of type {type(value).__name__}", "text, whole numbers, truth values and lists of these")


def _bad_field(found: str, rule: str) -> InputError:
    return InputError("audit.field", "the audit log does not take this field", found=found, rule=rule)


def damaged(check: str, seq: int, problem: str, found: str | None = None) -> IntegrityError:
    """The error for an entry that the owner did not write so; ``problem`` continues "entry N of the audit log"."""
    return IntegrityError(
        check,
        f"entry {seq} of the audit log {problem}",
        found=found,
        rule="no entry may be changed, dropped, inserted or reordered",
        remedy="compare with an exported copy; nothing from this entry on can be relied upon",
    )
