"""The first part of a sealed keystore: what opens it. Parsed and bounded before any work is done on its word."""

from __future__ import annotations

import json
import secrets
import struct
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ensconce.errors import IntegrityError
from ensconce.keys.unlock import ScryptCost, Sort
from ensconce.strict import StrictModel

__all__ = ["Header", "Shared", "Wrapped", "bad_format", "begins_as_keystore", "parse_header", "passphrase_cost"]

_MAX_LABEL = 16 * 1024  # a wrapped key takes a few hundred
_MAGIC = b"ENSCONCE-KEYS\x00"
_FIXED = struct.Struct(">14sHBBBB32s")
_LENGTH = struct.Struct(">I")
_FIRST, _SECOND = 1, 2
# 128 MiB and about a third of a second; what OWASP asks for.
_WRITTEN_COST = ScryptCost(log2_n=17, r=8, p=1)
_LOG2_N_ACCEPTED = range(15, 19)
_AFTER_HEADER = 12 + 32 + 16
_IN_FIRST = (Sort.PASSPHRASE, Sort.KEY_FILE)

_Text = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"^[\x21-\x7e]*$")]


class Wrapped(StrictModel):
    """The root key as a service wrapped it, and for which deployment; both are public."""

    deployment: _Text
    wrapped: _Text

    def binding(self, salt: bytes) -> dict[str, str]:
        """What the service binds the wrapped key to; KMS records it, and key policies can ask for it."""
        return binding(self.deployment, salt)


class Shared(StrictModel):
    """A backup: whose, made when (Unix time in seconds), and which shares of its root key open it."""

    deployment: _Text
    created: Annotated[int, Field(ge=0)]
    identifier: Annotated[int, Field(ge=0, lt=1 << 15)]
    shares: Annotated[int, Field(ge=2, le=16)]
    threshold: Annotated[int, Field(ge=2, le=16)]


@dataclass(frozen=True)
class Header:
    """The part of the file that stays the same from write to write.

    Attributes:
        sort: what opens the keystore.
        cost: scrypt's parameters for a passphrase, else None.
        salt: 32 bytes, fresh for each root key.
        label: of a service's wrapped key, or of a backup; None for a passphrase or a key file.
        version: of the format that it was read from; what is written is always the newest.
    """

    sort: Sort
    cost: ScryptCost | None
    salt: bytes
    label: Wrapped | Shared | None = None
    version: int = field(default=_SECOND, compare=False)

    def to_bytes(self) -> bytes:
        """Everything before the nonce."""
        cost = self.cost or ScryptCost(0, 0, 0)
        fixed = _FIXED.pack(_MAGIC, self.version, self.sort, cost.log2_n, cost.r, cost.p, self.salt)
        if self.version == _FIRST:
            return fixed
        label = b""
        if self.label is not None:
            label = json.dumps(self.label.model_dump(), sort_keys=True, separators=(",", ":")).encode("ascii")
        return fixed + _LENGTH.pack(len(label)) + label


def passphrase_cost() -> ScryptCost:
    """What scrypt is asked for in new keystores."""
    return _WRITTEN_COST


def new_salt() -> bytes:
    """32 fresh random bytes."""
    return secrets.token_bytes(32)


def binding(deployment: str, salt: bytes) -> dict[str, str]:
    """What a service's wrapped key is for: this deployment, and this very root key."""
    return {"ensconce:deployment": deployment, "ensconce:keystore": salt.hex()}


def begins_as_keystore(data: bytes) -> bool:
    """Whether a file begins as every keystore and every backup does; if not, it is something else, and not damaged."""
    return data[: len(_MAGIC)] == _MAGIC


def parse_header(data: bytes) -> Header:
    """Parse and bound the header before any work is done on its word.

    Raises:
        IntegrityError: ``keystore.format``: this is not a keystore, is of another version, or asks scrypt for costs
            outside what we accept (a hostile file could otherwise exhaust memory).
    """
    if len(data) < _FIXED.size + _AFTER_HEADER or not begins_as_keystore(data):
        raise bad_format("this is not a keystore file", "restore it from a backup")
    _, version, number, log2_n, r, p, salt = _FIXED.unpack_from(data)
    if version not in (_FIRST, _SECOND):
        raise bad_format("the keystore has an unknown version", "use the release that wrote it", found=str(version))
    cost = ScryptCost(log2_n, r, p)
    sort = Sort(number) if number in list(Sort) else None
    scrypt_is_right = (
        (log2_n in _LOG2_N_ACCEPTED and (r, p) == (8, 1)) if sort is Sort.PASSPHRASE else cost == ScryptCost(0, 0, 0)
    )
    if sort is None or not scrypt_is_right or (version == _FIRST and sort not in _IN_FIRST):
        raise bad_format(
            "the keystore's key derivation is not one that we accept",
            "restore the keystore from a backup",
            found=f"sort {number}, log2(N) {log2_n}, r {r}, p {p}",
        )
    label = None if version == _FIRST else _parse_label(data, sort)
    return Header(sort, cost if sort is Sort.PASSPHRASE else None, salt, label, version)


def _parse_label(data: bytes, sort: Sort) -> Wrapped | Shared | None:
    (length,) = _LENGTH.unpack_from(data, _FIXED.size)
    start = _FIXED.size + _LENGTH.size
    if length > _MAX_LABEL or len(data) < start + length + _AFTER_HEADER:
        raise bad_format("the keystore's header is cut off", "restore it from a backup", found=f"{length} bytes")
    text = data[start : start + length]
    if sort in _IN_FIRST:
        if text:
            raise _bad_label()
        return None
    try:
        label = (Shared if sort is Sort.SHARES else Wrapped).model_validate_json(text)
    except ValueError:
        label = None
    # Re-encoded, because the header must have one spelling: it is compared, and it is authenticated as read.
    if label is None or json.dumps(label.model_dump(), sort_keys=True, separators=(",", ":")).encode("ascii") != text:
        raise _bad_label()
    if isinstance(label, Shared) and label.threshold > label.shares:
        raise _bad_label()
    return label


def _bad_label() -> IntegrityError:
    return bad_format("the keystore's header does not say what opens it", "restore it from a backup")


def bad_format(problem: str, remedy: str, found: str | None = None) -> IntegrityError:
    """The error for what is not a keystore."""
    return IntegrityError("keystore.format", problem, found=found, rule="docs/reference/keystore.md", remedy=remedy)
