"""Asymmetric keys in a keystore: PKCS #8 DER inside (RFC 5208), ``cryptography`` objects outside."""

from __future__ import annotations

from typing import Literal, overload

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from ensconce.errors import IntegrityError
from ensconce.keys.keystore import Keystore

__all__ = ["get_private_key", "put_private_key"]

PrivateKey = Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey
_CLASSES: dict[str, type[PrivateKey]] = {
    "ed25519": Ed25519PrivateKey,
    "rsa": RSAPrivateKey,
    "ec": EllipticCurvePrivateKey,
}


def put_private_key(keystore: Keystore, key_id: str, key: PrivateKey) -> None:
    """Store a private key under the kind that it is. Raises as :meth:`Keystore.put`."""
    kind: Literal["ed25519", "rsa", "ec"]
    if isinstance(key, Ed25519PrivateKey):
        kind = "ed25519"
    elif isinstance(key, RSAPrivateKey):
        kind = "rsa"
    else:
        kind = "ec"
    keystore.put(key_id, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), kind=kind)


@overload
def get_private_key(keystore: Keystore, key_id: str, kind: Literal["ed25519"]) -> Ed25519PrivateKey: ...
@overload
def get_private_key(keystore: Keystore, key_id: str, kind: Literal["rsa"]) -> RSAPrivateKey: ...
@overload
def get_private_key(keystore: Keystore, key_id: str, kind: Literal["ec"]) -> EllipticCurvePrivateKey: ...
def get_private_key(keystore: Keystore, key_id: str, kind: Literal["ed25519", "rsa", "ec"]) -> PrivateKey:
    """A private key of the kind that the caller needs.

    Raises:
        IntegrityError: ``key.kind``: what is stored under ``key_id`` is not such a key.
        EnsconceError: as :meth:`Keystore.get`.
    """
    try:
        key = load_der_private_key(keystore.get(key_id), password=None)
    except (ValueError, TypeError):
        key = None
    if key is None or not isinstance(key, _CLASSES[kind]):
        raise IntegrityError(
            "key.kind",
            f"{key_id} is not a private key of kind {kind}",
            rule="PKCS #8 DER",
            remedy="check what was stored under this id",
        )
    return key
