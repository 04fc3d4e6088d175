"""The sealed keystore's format: open and seal bytes; no file system here.

Version 2, which is what is written:

========  ======  ==================================================================================
offset    size    field
========  ======  ==================================================================================
       0      14  ``ENSCONCE-KEYS`` and a NUL
      14       2  version of the format, big-endian: 2
      16       1  what opens it: 1 passphrase, 2 key file, 3 Vault, 4 AWS KMS, 5 the shares of a backup
      17       1  scrypt's log2(N), 15 to 18; 0 without a passphrase
      18       1  scrypt's r, 8; 0 without a passphrase
      19       1  scrypt's p, 1; 0 without a passphrase
      20      32  salt, fresh for each root key
      52       4  length L of the label, big-endian, at most 16384
      56       L  label, JSON: ``deployment``, ``wrapped``; a backup's: :class:`~ensconce.keys.header.Shared`; else none
    56+L      12  nonce, fresh at each write
    68+L      32  HMAC-SHA-256 of everything before it under the confirming key
   100+L       n  AES-256-GCM of the payload, its 16-byte tag last; everything before it is associated data
========  ======  ==================================================================================

scrypt, or HKDF-SHA-256 for a key file or a root key, gives 64 bytes: the sealing key, then the confirming key. The HMAC
tells a wrong key from a damaged payload, and commits to the key, which GCM alone does not. The payload:

======  ====  ====================================================================================
     0     4  length J of the index, big-endian
     4     J  index, JSON: ``{"generation", "identity", "keys": [{"id", "kind", "created", "retired", "size"}, ...]}``
   4+J     n  the secrets one after the other, in the index's order, ``size`` bytes each, 0 once retired
======  ====  ====================================================================================

so that one secret can be taken out without making text of the others. ``identity`` is 64 hexadecimal digits, made once;
``generation`` grows by one at each write; both stay through every change of what opens the keystore.

Version 1, still read, and replaced at the next write: no label and no length of it, and a payload of JSON,
``{"keys": {id: {"kind", "created", "retired", "secret"}}}`` with ``secret`` in base64. Its generation is 0 and its
identity its salt.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from ensconce.errors import EnsconceError, IntegrityError
from ensconce.keys.header import Header, bad_format
from ensconce.keys.keystore import KeyEntry, Kind, check_new_key
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.unlock import SealKeys
from ensconce.strict import StrictModel

__all__ = ["MAX_FILE", "Contents", "Record", "open_sealed", "seal"]

MAX_FILE = 16 * 1024 * 1024
"""Largest keystore, in bytes."""
_NONCE, _CONFIRMATION, _TAG = 12, 32, 16
_NEWEST = 2


@dataclass(frozen=True)
class Record:
    """A key as the keystore holds it; ``secret`` is None once the key is retired."""

    entry: KeyEntry
    secret: bytes | memoryview | None = field(repr=False)


@dataclass
class Contents:
    """What is sealed; as a context manager, zeroed when the block ends, as far as it is in a buffer of its own.

    Attributes:
        identity: 64 hexadecimal digits that only this keystore has.
        generation: how often it has been written.
        records: keys by id.
    """

    identity: str
    generation: int
    records: dict[str, Record] = field(repr=False)
    _buffer: SecretBuffer | None = field(default=None, repr=False)

    def __enter__(self) -> Contents:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._buffer is not None:
            self._buffer.wipe()

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id."""
        return tuple(record.entry for _, record in sorted(self.records.items()))


def seal(header: Header, keys: SealKeys, contents: Contents) -> bytes:
    """The whole file for ``contents``, in the newest version, under a fresh nonce."""
    records = [record for _, record in sorted(contents.records.items())]
    index = json.dumps(
        {
            "generation": contents.generation,
            "identity": contents.identity,
            "keys": [
                {
                    "created": record.entry.created,
                    "id": record.entry.key_id,
                    "kind": record.entry.kind,
                    "retired": record.entry.retired,
                    "size": len(record.secret or b""),
                }
                for record in records
            ],
        },
        separators=(",", ":"),
    ).encode("ascii")
    start = replace(header, version=_NEWEST).to_bytes() + secrets.token_bytes(_NONCE)
    associated = start + hmac.digest(bytes(keys.confirm), start, "sha256")
    parts = [len(index).to_bytes(4, "big"), index, *(record.secret or b"" for record in records)]
    with SecretBuffer(sum(map(len, parts))) as payload:
        view, at = payload.view, 0
        for part in parts:
            view[at : at + len(part)] = part
            at += len(part)
        return associated + AESGCM(keys.seal).encrypt(start[-_NONCE:], view, associated)


def open_sealed(data: bytes, header: Header, candidates: Iterator[SealKeys]) -> tuple[SealKeys, Contents]:
    """Open a file whose header was parsed, with the first of ``candidates`` that is right.

    Returns:
        The keys that opened it, and what it holds; the caller leaves the contents' context when done.

    Raises:
        IntegrityError: ``keystore.seal``: what should open it is wrong, or the file is damaged (the text says which);
            ``keystore.format``: it opened, and does not hold what a keystore holds.
        EnsconceError: whatever getting a candidate raises.
    """
    end = len(header.to_bytes()) + _NONCE
    start, confirmation = data[:end], data[end : end + _CONFIRMATION]
    for keys in candidates:
        if hmac.compare_digest(hmac.digest(bytes(keys.confirm), start, "sha256"), confirmation):
            return keys, _open(data, end, header, keys)
    raise IntegrityError(
        "keystore.seal",
        f"{header.sort.words.removeprefix('a ').removeprefix('the ')} is wrong, or the beginning of the keystore is "
        "damaged",
        remedy="try again; if you are sure of it, restore the keystore from a backup",
    )


def _open(data: bytes, end: int, header: Header, keys: SealKeys) -> Contents:
    body = end + _CONFIRMATION
    payload = SecretBuffer(len(data) - body - _TAG)
    try:
        AESGCM(keys.seal).decrypt_into(data[end - _NONCE : end], data[body:], data[:body], payload.view)
    except InvalidTag:
        raise IntegrityError(
            "keystore.seal",
            f"{header.sort.words.removeprefix('a ')} is right, and the keystore's content is damaged or was changed",
            remedy="restore the keystore from a backup",
        ) from None
    contents = _parse(payload) if header.version == _NEWEST else _parse_first(payload, header.salt)
    if contents is None:
        payload.wipe()
        raise bad_format("the keystore opened, but does not hold what a keystore holds", "restore it from a backup")
    return contents


_Time = Annotated[int, Field(ge=0)]


class _IndexKey(StrictModel):
    id: str
    kind: Kind
    created: _Time
    retired: _Time | None
    size: Annotated[int, Field(ge=0)]


class _Index(StrictModel):
    generation: Annotated[int, Field(ge=1, lt=1 << 53)]
    identity: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    keys: list[_IndexKey]


def _parse(payload: SecretBuffer) -> Contents | None:
    view = payload.view
    at = 4 + int.from_bytes(view[:4], "big")
    # None instead of an exception: those of the parsers carry what they read, and would travel as a cause.
    try:
        index = _Index.model_validate_json(bytes(view[4:at]))
        records = {}
        for key in index.keys:
            secret = None if key.retired is not None else view[at : at + key.size]
            at += key.size
            records[key.id] = _record(KeyEntry(key.id, key.kind, key.created, key.retired), secret)
        if at != len(payload) or [key.id for key in index.keys] != sorted(records):
            return None
        if any(key.size for key in index.keys if key.retired is not None):
            return None
    except (ValueError, EnsconceError):
        return None
    return Contents(index.identity, index.generation, records, payload)


class _FirstKey(StrictModel):
    kind: Kind
    created: _Time
    retired: _Time | None
    secret: str | None = Field(repr=False)


class _FirstPayload(StrictModel):
    keys: dict[str, _FirstKey]


def _parse_first(payload: SecretBuffer, salt: bytes) -> Contents | None:
    try:
        with payload:
            parsed = _FirstPayload.model_validate_json(bytes(payload.view))
        records = {}
        for key_id, key in parsed.keys.items():
            if (key.secret is None) != (key.retired is not None):
                return None
            secret = None if key.secret is None else base64.b64decode(key.secret, validate=True)
            records[key_id] = _record(KeyEntry(key_id, key.kind, key.created, key.retired), secret)
    except (ValueError, EnsconceError):
        return None
    return Contents(salt.hex(), 0, records)


def _record(entry: KeyEntry, secret: bytes | memoryview | None) -> Record:
    check_new_key(entry.key_id, bytes(16) if secret is None else secret, entry.kind)
    return Record(entry, secret)
