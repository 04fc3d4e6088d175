"""Bodies sealed to an enclave, for where TLS ends before it: the bytes of both directions, and what vouches for a key.

Wire format: ``docs/reference/serving.md``, section "Sealed bodies". A request is HPKE (RFC 9180), single shot in base
mode: encapsulated key, then ciphertext. Its plaintext begins with a secret for the answer, whose key is derived from
that as in RFC 9458, section 4.4.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = [
    "KEY_HEADER",
    "KEY_SIZE",
    "MEDIA_TYPE",
    "MOST_NONCES",
    "ROUTE_HEADER",
    "SEALING_KEY_METHOD",
    "SEALING_KEY_PATH",
    "Answering",
    "Api",
    "Statement",
    "key_id",
    "open_request",
    "seal_request",
    "signed_part",
]

Api = Literal["grpc", "rest"]

KEY_HEADER: Final = "ensconce-key"
"""Says that a request is sealed, and to which key."""
ROUTE_HEADER: Final = "ensconce-route"
"""Chosen by the client, the same for all that should reach one replica."""
MEDIA_TYPE: Final = "application/ensconce-sealed"
"""What sealed bodies are over REST, in both directions."""
SEALING_KEY_METHOD: Final = "/ensconce.Attestation/SealingKey"
SEALING_KEY_PATH: Final = "/ensconce/sealing-key"
KEY_SIZE: Final = 32
"""Bytes of a public key, which is also what an encapsulated key has."""
MOST_NONCES: Final = 1024
"""That one quote is made over."""

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_REQUEST, _ANSWER, _KEY = b"ensconce/1 sealed request", b"ensconce/1 sealed answer", b"ensconce/1 sealing key"
_SECRET_SIZE: Final = 32
_NONCE_SIZE: Final = 32
_STATUS_SIZE: Final = 2
_AES_KEY_SIZE, _AES_NONCE_SIZE = 16, 12


@dataclass(frozen=True)
class Statement:
    """What an enclave says of its sealing key.

    Attributes:
        certificate: its serving certificate, with evidence; DER.
        key: X25519, 32 bytes.
        signature: ECDSA with SHA-256 of the certificate's key over :func:`signed_part`; DER.
        quote: a fresh one over the key, see :func:`ensconce.ratls.binding.sealing_binding`, for whoever sent a nonce.
        nonces: that it was made over, one behind the other; the asker's is among them.
    """

    certificate: bytes
    key: bytes
    signature: bytes
    quote: bytes = b""
    nonces: bytes = b""


def signed_part(key: bytes) -> bytes:
    """The bytes that the certificate's key signs for a sealing key.

    64 spaces, the context and a zero byte, as in RFC 8446, section 4.4.3: longer than what a client of TLS 1.2 can
    choose of what a server signs, and another context than TLS 1.3's.
    """
    return b" " * 64 + _KEY + b"\0" + key


def key_id(key: bytes) -> str:
    """Names a sealing key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:16]


@dataclass(frozen=True, repr=False, slots=True)
class Answering:
    """What seals the answer to one request, and opens it.

    Attributes:
        encapsulated: the encapsulated key of the request, by which the server knows it again.
    """

    encapsulated: bytes
    _secret: bytes

    def seal(self, status: int, body: bytes) -> bytes:
        """A nonce of 32 bytes; sealed behind it the status, 2 bytes big-endian, and the body.

        Args:
            status: of gRPC or HTTP.
            body: the message, or the error's text; over REST the body.
        """
        nonce = os.urandom(_NONCE_SIZE)
        aead, iv = self._derived(nonce)
        return nonce + aead.encrypt(iv, status.to_bytes(_STATUS_SIZE, "big") + body, None)

    def open(self, sealed: bytes) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            ValueError: this is no answer to this request.
        """
        nonce = sealed[:_NONCE_SIZE]
        try:
            aead, iv = self._derived(nonce)
            plain = aead.decrypt(iv, sealed[_NONCE_SIZE:], None)
        except InvalidTag:
            raise ValueError("not an answer to this request") from None
        if len(plain) < _STATUS_SIZE:
            raise ValueError("an answer without a status")
        return int.from_bytes(plain[:_STATUS_SIZE], "big"), plain[_STATUS_SIZE:]

    def _derived(self, nonce: bytes) -> tuple[AESGCM, bytes]:
        kdf = HKDF(SHA256(), _AES_KEY_SIZE + _AES_NONCE_SIZE, salt=self.encapsulated + nonce, info=_ANSWER)
        derived = kdf.derive(self._secret)
        return AESGCM(derived[:_AES_KEY_SIZE]), derived[_AES_KEY_SIZE:]


def seal_request(key: bytes, api: Api, path: str, body: bytes) -> tuple[bytes, Answering]:
    """Seal a request's body.

    Args:
        key: the enclave's sealing key, 32 bytes.
        api: how it is asked.
        path: what is asked, as sent: ``/package.Service/Method``, or path and query.
        body: the message, or the JSON.

    Raises:
        ValueError: this is no key.
    """
    secret = os.urandom(_SECRET_SIZE)
    sealed = _SUITE.encrypt(secret + body, X25519PublicKey.from_public_bytes(key), _info(key, api, path))
    return sealed, Answering(sealed[:KEY_SIZE], secret)


def open_request(
    private_key: X25519PrivateKey, api: Api, path: str, sealed: bytes | bytearray | memoryview
) -> tuple[memoryview, Answering]:
    """The body that :func:`seal_request` sealed, in memory of its own, and what seals the answer.

    Raises:
        ValueError: it was not sealed to this key, for this path, or not at all.
    """
    key = private_key.public_key().public_bytes_raw()
    try:
        plain = _SUITE.decrypt(sealed, private_key, _info(key, api, path))
    except InvalidTag:
        raise ValueError("not sealed to this key and path") from None
    if len(plain) < _SECRET_SIZE:
        raise ValueError("a request without a secret for the answer")
    return memoryview(plain)[_SECRET_SIZE:], Answering(bytes(sealed[:KEY_SIZE]), plain[:_SECRET_SIZE])


def _info(key: bytes, api: Api, path: str) -> bytes:
    parts = (_REQUEST, key, api.encode(), path.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
