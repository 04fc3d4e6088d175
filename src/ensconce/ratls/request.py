"""What an enclave makes for a key of its own: a container for TLS, and a request for a serving certificate.

The request carries evidence that binds the key to the enclave in the form of Interoperable RA-TLS, and the authority
copies it into the certificate, where every client can check it for as long as the certificate lives. The container is
a self-signed certificate that TLS needs around a client's key; it says nothing, and nothing in it is believed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ensconce.evidence.certificate import evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.spki import spki_of

__all__ = ["make_certificate_request", "make_key_container"]

# An enclave has no clock that it may trust, and freshness comes from the nonce: RFC 5280 section 4.1.2.5 has a date
# for certificates without an expiry.
_NOT_BEFORE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ensconce enclave key")])


def make_key_container(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A self-signed certificate for the key, to be a TLS client with: without meaning, without expiry."""
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def make_certificate_request(key: ec.EllipticCurvePrivateKey, domain: str, quote: Callable[[bytes], bytes]) -> bytes:
    """A certificate request (PKCS #10, DER) for ``domain`` with evidence that the key lives in this enclave.

    The quote's report data is SHA-256 of the claims, then 32 zero bytes; the claims hold SHA-256 of the key.

    Args:
        key: the key that the certificate will be for; P-256.
        domain: the service's DNS name, the only subject alternative name.
        quote: makes a quote for 64 bytes of report data.

    Raises:
        EnsconceError: whatever ``quote`` raises.
    """
    claims = encode_claims(spki_of(key.public_key()))
    evidence = quote(hashlib.sha256(claims).digest() + bytes(32))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=True)
        .add_extension(evidence_extension(evidence, claims), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.DER)
