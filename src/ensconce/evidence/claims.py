"""Claims beside a quote, as Interoperable RA-TLS (Confidential Computing Consortium) puts them into a certificate.

Evidence is CBOR (RFC 8949): tag 60000 over an array of two byte strings, the quote and the serialised claims. Claims
are a map: ``"pubkey-hash"`` to a byte string that is itself CBOR, an array of hash algorithm (IANA named information
registry) and hash over the DER SubjectPublicKeyInfo; optionally ``"nonce"`` to a byte string. The quote's report data
begins with SHA-256 of the serialised claims. Definite lengths only. Nothing else may be in the map: a claim that
nobody checks is not accepted, and without a key hash the claims would bind nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ensconce.errors import EvidenceError
from ensconce.evidence.quote import MAX_QUOTE_SIZE

__all__ = ["HASHES", "Claims", "encode_claims", "encode_evidence", "parse_claims", "parse_evidence"]

HASHES = {1: "sha256", 7: "sha384", 8: "sha512"}
"""Hash algorithms of the IANA named information registry that a key hash may use, and hashlib's names for them."""

_EVIDENCE_TAG = 60000
_MAX_CLAIMS_SIZE = 1024
_MAX_NONCE_SIZE = 256
_UNSIGNED, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = 0, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims taken apart.

    Attributes:
        hash_algorithm: a key of :data:`HASHES`.
        pubkey_hash: hash of the DER SubjectPublicKeyInfo.
        nonce: what a verifier had asked for, or ``None``.
        encoded: the bytes that the quote's report data is the SHA-256 of.
    """

    hash_algorithm: int
    pubkey_hash: bytes
    nonce: bytes | None
    encoded: bytes


def encode_claims(spki_der: bytes, nonce: bytes | None = None) -> bytes:
    """Serialise claims about a key, with its SHA-256.

    Args:
        spki_der: the public key as DER SubjectPublicKeyInfo.
        nonce: at most 256 bytes.
    """
    if nonce is not None and len(nonce) > _MAX_NONCE_SIZE:
        raise ValueError("the nonce is too long")
    key_hash = _head(_ARRAY, 2) + _head(_UNSIGNED, 1) + _byte_string(hashlib.sha256(spki_der).digest())
    claims = _text("pubkey-hash") + _byte_string(key_hash)
    if nonce is not None:
        claims += _text("nonce") + _byte_string(nonce)
    return _head(_MAP, 1 if nonce is None else 2) + claims


def encode_evidence(quote: bytes, claims: bytes) -> bytes:
    """Serialise a quote and its serialised claims into the value of a certificate's evidence extension."""
    return _head(_TAG, _EVIDENCE_TAG) + _head(_ARRAY, 2) + _byte_string(quote) + _byte_string(claims)


def parse_evidence(data: bytes) -> tuple[bytes, bytes]:
    """Read the value of an evidence extension: the quote's bytes and the serialised claims.

    Raises:
        EvidenceError: not exactly this structure.
    """
    reader = _Reader(data)
    reader.expect(_TAG, "a tag", _EVIDENCE_TAG)
    reader.expect(_ARRAY, "an array of two", 2)
    quote = reader.byte_string(MAX_QUOTE_SIZE)
    claims = reader.byte_string(_MAX_CLAIMS_SIZE)
    reader.finish()
    return quote, claims


def parse_claims(data: bytes) -> Claims:
    """Read serialised claims.

    Raises:
        EvidenceError: not exactly this structure, no key hash, a claim twice, or a claim that is not known.
    """
    if len(data) > _MAX_CLAIMS_SIZE:
        raise _malformed("the claims are too long", f"{len(data)} bytes")
    reader = _Reader(data)
    found: dict[str, bytes] = {}
    for _ in range(reader.argument(_MAP, "a map", limit=2)):
        name = reader.text(32)
        if name not in ("pubkey-hash", "nonce") or name in found:
            raise _malformed("a claim is unknown or there twice", name)
        found[name] = reader.byte_string(_MAX_NONCE_SIZE)
    reader.finish()
    if "pubkey-hash" not in found:
        raise EvidenceError(
            "claims.pubkey_hash",
            "the claims name no key, so the quote would fit any certificate",
            rule="pubkey-hash is there exactly once",
            remedy="let the enclave make its certificate with Gramine 1.8 or newer, or with Ensconce",
        )
    reader_of_hash = _Reader(found["pubkey-hash"])
    reader_of_hash.expect(_ARRAY, "an array of two", 2)
    algorithm = reader_of_hash.argument(_UNSIGNED, "a hash algorithm", limit=255)
    value = reader_of_hash.byte_string(64)
    reader_of_hash.finish()
    if algorithm not in HASHES or len(value) != hashlib.new(HASHES[algorithm]).digest_size:
        raise _malformed("the key hash is of an unknown kind or length", f"algorithm {algorithm}, {len(value)} bytes")
    return Claims(hash_algorithm=algorithm, pubkey_hash=value, nonce=found.get("nonce"), encoded=bytes(data))


def _head(major: int, argument: int) -> bytes:
    """The shortest head of a CBOR data item (RFC 8949 section 3)."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for information, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | information]) + argument.to_bytes(size, "big")
    raise ValueError("too long for this subset of CBOR")


def _byte_string(value: bytes) -> bytes:
    return _head(_BYTES, len(value)) + value


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _head(_TEXT, len(encoded)) + encoded


class _Reader:
    """Reads the few kinds of CBOR items that evidence is made of, definite lengths only."""

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    def argument(self, major: int, what: str, *, limit: int) -> int:
        initial = self._take(1)[0]
        information = initial & 31
        if initial >> 5 != major or information > 26:
            raise _malformed(f"expected {what} of definite length", f"byte {initial:#04x} at {self._at - 1}")
        value = information
        if information >= 24:
            value = int.from_bytes(self._take(1 << information - 24), "big")
        if value > limit:
            raise _malformed(f"{what} is too large", str(value))
        return value

    def expect(self, major: int, what: str, value: int) -> None:
        found = self.argument(major, what, limit=2**32)
        if found != value:
            raise _malformed(f"expected {what}", str(found))

    def byte_string(self, limit: int) -> bytes:
        return self._take(self.argument(_BYTES, "a byte string", limit=limit))

    def text(self, limit: int) -> str:
        raw = self._take(self.argument(_TEXT, "a text string", limit=limit))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise _malformed("a text string is not UTF-8", raw.hex()) from None

    def finish(self) -> None:
        if self._at != len(self._data):
            raise _malformed("bytes are left over", f"{len(self._data) - self._at} bytes")

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise _malformed("it ends too early", f"{len(self._data)} bytes")
        self._at += size
        return self._data[self._at - size : self._at]


def _malformed(problem: str, found: str) -> EvidenceError:
    return EvidenceError(
        "claims.format",
        f"the evidence is not the CBOR of Interoperable RA-TLS: {problem}",
        found=found,
        rule='60000([quote, claims]), claims = {"pubkey-hash": [algorithm, hash], ? "nonce": bytes}',
        remedy="let the enclave make its certificate with Gramine 1.8 or newer, or with Ensconce",
    )
