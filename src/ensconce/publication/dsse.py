"""DSSE envelopes with Ed25519 signatures (https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md).

What is signed is PAE(payloadType, payload), so that a signature for one kind of payload is none for another. Stricter
than the specification, which has readers ignore what they do not know: these envelopes are our own, and are canonical.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ensconce.appraisal.policy_owners import key_name
from ensconce.audit.entry import canonical
from ensconce.strict import StrictModel

__all__ = ["MAX_PAYLOAD", "PAYLOAD_TYPE", "Envelope", "pae", "seal"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""Of in-toto Statements (https://github.com/in-toto/attestation, spec/v1/envelope.md)."""

MAX_PAYLOAD = 1 << 16
"""Longest payload in bytes."""

_MAX_SIGNATURES = 8


class Signature(StrictModel):
    """One signature of an envelope.

    Attributes:
        keyid: name of the key; a hint that nothing depends on.
        sig: 64 bytes, Base64.
    """

    keyid: Annotated[str, Field(max_length=200)] = ""
    sig: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class Envelope(StrictModel):
    """The JSON envelope; the names of its members are DSSE's.

    Attributes:
        payload: Base64.
        payloadType: what the payload is; the one type that we read.
        signatures: of PAE(payloadType, payload).
    """

    payload: Annotated[str, Field(max_length=4 * MAX_PAYLOAD // 3 + 4)]
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=_MAX_SIGNATURES)]

    def body(self) -> bytes:
        """The payload's bytes.

        Raises:
            ValueError: it is not Base64 (RFC 4648, section 4) in its one spelling, or too long.
        """
        body = base64.b64decode(self.payload, validate=True)
        if base64.b64encode(body).decode() != self.payload or len(body) > MAX_PAYLOAD:
            raise ValueError("no payload")
        return body

    def to_bytes(self) -> bytes:
        """The envelope by itself: canonical JSON."""
        return canonical(self.model_dump(mode="json"))

    def signer(self, keys: Iterable[Ed25519PublicKey]) -> Ed25519PublicKey | None:
        """The first of these keys that signed it; None when none of them did."""
        message = pae(self.payloadType.encode(), self.body())
        signatures = [base64.b64decode(each.sig) for each in self.signatures]
        return next((key for key in keys if any(_is_good(key, each, message) for each in signatures)), None)


def seal(payload: bytes, key: Ed25519PrivateKey) -> Envelope:
    """Sign a payload."""
    signature = base64.b64encode(key.sign(pae(PAYLOAD_TYPE.encode(), payload))).decode()
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        payloadType=PAYLOAD_TYPE,
        signatures=(Signature(keyid=key_name(key.public_key()), sig=signature),),
    )


def pae(payload_type: bytes, payload: bytes) -> bytes:
    """DSSE's Pre-Authentication Encoding, which is what signatures are of."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type, len(payload), payload)


def _is_good(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
