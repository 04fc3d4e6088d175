"""Owners: the keys that sign policies, and how many of them must."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.appraisal.policy_check import invalid, refuse_twice
from ensconce.errors import InputError

__all__ = ["Owners", "key_name", "public_key"]

MAX_OWNERS = 64
_KEY = re.compile(r"ed25519:[0-9a-f]{64}")
_P = 2**255 - 19
# The y of the points whose order is 1, 2, 4 or 8 (RFC 7748, section 7, warns of them; OpenSSL takes them): for such a
# key, signatures over any text can be written down without a private key.
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


def key_name(key: Ed25519PublicKey) -> str:
    """What a policy calls a key: ``ed25519:`` and its 32 bytes (RFC 8032) in lower-case hexadecimal."""
    return f"ed25519:{key.public_bytes_raw().hex()}"


def public_key(name: str) -> Ed25519PublicKey:
    """The key of that name.

    Raises:
        InputError: ``policy.value``: it is no name of a key, or it is a key for which everybody can sign.
    """
    if not _KEY.fullmatch(name):
        raise invalid("owners.keys", name, "ed25519: and 64 hexadecimal digits, lower case")
    key = bytes.fromhex(name.removeprefix("ed25519:"))
    # The last bit is the sign of x, and y may be written as y + p.
    if (int.from_bytes(key, "little") & (2**255 - 1)) % _P in _SMALL_ORDER:
        raise invalid("owners.keys", name, "a key that somebody made: signatures for this point prove nothing")
    return Ed25519PublicKey.from_public_bytes(key)


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Who must sign a policy and the one that follows it.

    Attributes:
        required: how many of them, at least one.
        keys: their names, at most 64.

    Raises:
        InputError: fewer keys than required, a name that is none, or one twice.
    """

    required: int
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.keys) > MAX_OWNERS:
            raise invalid("owners.keys", f"{len(self.keys)} keys", f"at most {MAX_OWNERS}")
        for each in self.keys:
            public_key(each)
        refuse_twice(self.keys, "owners.keys")
        if not 1 <= self.required <= len(self.keys):
            raise InputError(
                "policy.owners",
                "so many owners there are not",
                found=f"required: {self.required} of {len(self.keys)}",
                rule="1 to the number of keys",
                remedy="name more keys, or require fewer",
            )

    def missing(self, signers: Iterable[str]) -> int:
        """How many more of them must sign beside these."""
        return max(0, self.required - len(set(signers) & set(self.keys)))

    def to_json_object(self) -> dict[str, Any]:
        """The owners as the policy file has them, keys sorted."""
        return {"required": self.required, "keys": sorted(self.keys)}
