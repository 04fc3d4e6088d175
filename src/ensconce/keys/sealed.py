"""The keystore file's format: parse, open and seal bytes; no file system here.

======  ====  ===================================================================================
offset  size  field
======  ====  ===================================================================================
     0    14  ``ENSCONCE-KEYS`` and a NUL
    14     2  version of the format, big-endian: 1
    16     1  what opens it: 1 passphrase, 2 key file
    17     1  scrypt's log2(N), 15 to 18; 0 for a key file
    18     1  scrypt's r, 8; 0 for a key file
    19     1  scrypt's p, 1; 0 for a key file
    20    32  salt, made once
    52    12  nonce, fresh at each write
    64    32  HMAC-SHA-256 of bytes 0 to 63 under the confirming key
    96     n  AES-256-GCM of the payload, its 16-byte tag last; bytes 0 to 95 are associated data
======  ====  ===================================================================================

scrypt (or HKDF-SHA-256 for a key file) gives 64 bytes: the sealing key, then the confirming key. The HMAC tells a wrong
passphrase from a damaged payload, and commits to the key, which GCM alone does not. The payload is JSON:
``{"keys": {id: {"kind", "created", "retired", "secret"}}}`` with ``secret`` in base64, null once retired.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import struct
from dataclasses import dataclass, field
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from ensconce.errors import EnsconceError, IntegrityError
from ensconce.keys.keystore import KeyEntry, Kind, check_new_key
from ensconce.keys.unlock import Passphrase, ScryptCost, SealKeys, Unlock
from ensconce.strict import StrictModel

__all__ = ["HEADER_SIZE", "MAX_FILE", "Header", "Record", "new_header", "open_sealed", "parse_header", "seal"]

MAX_FILE = 16 * 1024 * 1024
"""Largest keystore file, in bytes."""
HEADER_SIZE = 96
_MAGIC = b"ENSCONCE-KEYS\x00"
_VERSION = 1
_FIXED = struct.Struct(">14sHBBBB32s")
_PASSPHRASE, _KEY_FILE = 1, 2
# 128 MiB and about a third of a second; what OWASP asks for.
_WRITTEN_COST = ScryptCost(log2_n=17, r=8, p=1)
_LOG2_N_ACCEPTED = range(15, 19)


@dataclass(frozen=True)
class Header:
    """The part of the header that stays the same from write to write.

    Attributes:
        cost: scrypt's parameters, or None when a key file opens the keystore.
        salt: 32 bytes.
    """

    cost: ScryptCost | None
    salt: bytes

    def to_bytes(self) -> bytes:
        """Bytes 0 to 51 of the file."""
        cost = self.cost or ScryptCost(0, 0, 0)
        sort = _KEY_FILE if self.cost is None else _PASSPHRASE
        return _FIXED.pack(_MAGIC, _VERSION, sort, cost.log2_n, cost.r, cost.p, self.salt)


@dataclass(frozen=True)
class Record:
    """A key as the keystore holds it; ``secret`` is None once the key is retired."""

    entry: KeyEntry
    secret: bytes | None = field(repr=False)


def new_header(unlock: Unlock) -> Header:
    """A header with a fresh salt for a keystore that ``unlock`` opens."""
    return Header(_WRITTEN_COST if isinstance(unlock, Passphrase) else None, secrets.token_bytes(32))


def parse_header(data: bytes) -> Header:
    """Parse and bound the header before any work is done on its word.

    Raises:
        IntegrityError: ``keystore.format``: this is not a keystore, is of another version, or asks scrypt for costs
            outside what we accept (a hostile file could otherwise exhaust memory).
    """
    if len(data) < HEADER_SIZE + 16 or data[: len(_MAGIC)] != _MAGIC:
        raise _bad_format("this is not a keystore file", "restore it from a backup")
    _, version, sort, log2_n, r, p, salt = _FIXED.unpack_from(data)
    if version != _VERSION:
        raise _bad_format("the keystore has an unknown version", "use the release that wrote it", found=str(version))
    if sort == _KEY_FILE and (log2_n, r, p) == (0, 0, 0):
        return Header(None, salt)
    if sort == _PASSPHRASE and log2_n in _LOG2_N_ACCEPTED and (r, p) == (8, 1):
        return Header(ScryptCost(log2_n, r, p), salt)
    raise _bad_format(
        "the keystore's key derivation is not one that we accept",
        "restore the keystore from a backup",
        found=f"sort {sort}, log2(N) {log2_n}, r {r}, p {p}",
    )


def seal(header: Header, keys: SealKeys, records: dict[str, Record]) -> bytes:
    """The whole file for ``records``, under a fresh nonce."""
    payload = json.dumps(
        {
            "keys": {
                key_id: {
                    "kind": record.entry.kind,
                    "created": record.entry.created,
                    "retired": record.entry.retired,
                    "secret": None if record.secret is None else base64.b64encode(record.secret).decode(),
                }
                for key_id, record in sorted(records.items())
            }
        },
        separators=(",", ":"),
    ).encode()
    nonce = secrets.token_bytes(12)
    start = header.to_bytes() + nonce
    associated = start + hmac.digest(keys.confirm, start, "sha256")
    return associated + AESGCM(keys.seal).encrypt(nonce, payload, associated)


def open_sealed(data: bytes, keys: SealKeys) -> dict[str, Record]:
    """Open a file whose header was parsed.

    Raises:
        IntegrityError: ``keystore.seal``: the passphrase or key file is wrong, or the file is damaged (the text says
            which); ``keystore.format``: it opened, and does not hold what a keystore holds.
    """
    start, confirmation = data[:64], data[64:HEADER_SIZE]
    if not hmac.compare_digest(hmac.digest(keys.confirm, start, "sha256"), confirmation):
        raise IntegrityError(
            "keystore.seal",
            "the passphrase or key file is wrong, or the first 96 bytes of the keystore are damaged",
            remedy="try again; if you are sure of it, restore the keystore from a backup",
        )
    try:
        payload = AESGCM(keys.seal).decrypt(start[52:64], data[HEADER_SIZE:], data[:HEADER_SIZE])
    except InvalidTag:
        raise IntegrityError(
            "keystore.seal",
            "the passphrase or key file is right, and the keystore's content is damaged or was changed",
            remedy="restore the keystore from a backup",
        ) from None
    records = _parse_payload(payload)
    if records is None:
        raise _bad_format("the keystore opened, but does not hold what a keystore holds", "restore it from a backup")
    return records


class _Key(StrictModel):
    kind: Kind
    created: Annotated[int, Field(ge=0)]
    retired: Annotated[int, Field(ge=0)] | None
    secret: str | None = Field(repr=False)


class _Payload(StrictModel):
    keys: dict[str, _Key]


def _parse_payload(payload: bytes) -> dict[str, Record] | None:
    # None instead of an exception: those of the parsers carry the plaintext, and would travel as a cause.
    try:
        parsed = _Payload.model_validate_json(payload)
        return {key_id: _record(key_id, key) for key_id, key in parsed.keys.items()}
    except (ValueError, EnsconceError):
        return None


def _record(key_id: str, key: _Key) -> Record:
    secret = None if key.secret is None else base64.b64decode(key.secret, validate=True)
    if (secret is None) != (key.retired is not None):
        raise ValueError("live without a secret, or retired with one")
    check_new_key(key_id, secret if secret is not None else bytes(16), key.kind)
    return Record(KeyEntry(key_id, key.kind, key.created, key.retired), secret)


def _bad_format(problem: str, remedy: str, found: str | None = None) -> IntegrityError:
    return IntegrityError(
        "keystore.format", problem, found=found, rule="docs/decisions/0011-keystore.md", remedy=remedy
    )
