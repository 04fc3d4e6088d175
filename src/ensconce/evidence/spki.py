"""A public key as certificates hold it: the bytes that claims, replicas' names and channel bindings are hashes of."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["spki_of"]


def spki_of(key: PublicKeyTypes) -> bytes:
    """The key as DER SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
