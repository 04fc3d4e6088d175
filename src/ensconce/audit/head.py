"""The signed tree head: how many entries there are, and the root that commits to all of them."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ensconce import strict_json
from ensconce.audit.entry import canonical
from ensconce.errors import IntegrityError

__all__ = ["MAX_HEAD", "Head", "head_missing", "head_put_back", "parse_head", "sign_head"]

MAX_HEAD = 4096
"""Longest head in bytes."""
_DOMAIN = b"ensconce/audit/head/1\x00"
_HEX = re.compile(r"[0-9a-f]{64}")
_KEYS = {"size", "root", "last", "time", "key_id", "signature"}


@dataclass(frozen=True)
class Head:
    """A signed statement of what the log holds.

    Attributes:
        size: number of entries.
        root: Merkle root of all of them (RFC 9162), 32 bytes.
        last: hash of the last entry, 32 bytes; zeros when there is none.
        time: when it was signed, RFC 3339 UTC.
        key_id: SHA-256 of the raw Ed25519 public key, hexadecimal.
        signature: Ed25519, 64 bytes.
    """

    size: int
    root: bytes
    last: bytes
    time: str
    key_id: str
    signature: bytes

    def to_json_object(self) -> dict[str, object]:
        """The head as JSON types."""
        return {**self._signed_object(), "signature": base64.b64encode(self.signature).decode()}

    def to_bytes(self) -> bytes:
        """The head as stored: canonical JSON and a newline."""
        return canonical(self.to_json_object()) + b"\n"

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return _DOMAIN + canonical(self._signed_object())

    def _signed_object(self) -> dict[str, object]:
        return {
            "size": self.size,
            "root": self.root.hex(),
            "last": self.last.hex(),
            "time": self.time,
            "key_id": self.key_id,
        }


def sign_head(size: int, root: bytes, last: bytes, time: str, key: Ed25519PrivateKey) -> Head:
    """Sign what the log holds."""
    unsigned = Head(size, root, last, time, _key_id(key.public_key()), b"")
    return Head(size, root, last, time, unsigned.key_id, key.sign(unsigned.signed_bytes()))


def parse_head(data: bytes | None, key: Ed25519PublicKey) -> Head:
    """Parse a head strictly and check its signature.

    Args:
        data: the head as stored, None when there is none.
        key: the owner's public key.

    Raises:
        IntegrityError: ``audit.head`` (missing, malformed, or changed), ``audit.key`` (signed by another key).
    """
    if data is None:
        raise head_missing()
    try:
        head = _parse(data)
    except (ValueError, TypeError):
        head = None
    if head is None or head.to_bytes() != data:
        raise _bad_head("audit.head", "the head of the audit log is damaged", ascii(data[:60]))
    if head.key_id != _key_id(key):
        raise _bad_head("audit.key", "the audit log was signed by another key", f"key {head.key_id[:16]}")
    try:
        key.verify(head.signature, head.signed_bytes())
    except InvalidSignature:
        raise _bad_head(
            "audit.head", "the head of the audit log was changed: its signature is wrong", f"size {head.size}"
        ) from None
    return head


def head_missing() -> IntegrityError:
    """The error for a log without a head."""
    return IntegrityError(
        "audit.head",
        "the head of the audit log is missing",
        rule="the head is written before the first entry",
        remedy="restore the log from a copy",
    )


def head_put_back(size: int, known: int) -> IntegrityError:
    """The error for a head of ``size`` entries where there were ``known`` already."""
    return IntegrityError(
        "audit.head",
        "the head of the audit log was put back to an earlier one",
        found=f"{size} entries, and there were {known}",
        rule="a log only grows",
        remedy="restore the log or compare with an exported copy",
    )


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _parse(data: bytes) -> Head | None:
    value = strict_json.loads(data) if len(data) <= MAX_HEAD else None
    if not isinstance(value, dict) or set(value) != _KEYS:
        return None
    size, time = value["size"], value["time"]
    if type(size) is not int or size < 0 or not isinstance(time, str):
        return None
    if not all(_HEX.fullmatch(value[name]) for name in ("root", "last", "key_id")):
        return None
    signature = base64.b64decode(value["signature"], validate=True)
    return Head(size, bytes.fromhex(value["root"]), bytes.fromhex(value["last"]), time, value["key_id"], signature)


def _bad_head(check: str, problem: str, found: str) -> IntegrityError:
    return IntegrityError(
        check,
        problem,
        found=found,
        rule="the head is signed by the log's owner",
        remedy="check the public key; if it is the right one, restore the log or compare with an exported copy",
    )
