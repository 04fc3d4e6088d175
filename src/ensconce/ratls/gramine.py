"""Judges the certificate that Gramine's secret provisioning library presents as a TLS client.

All that wire v1 knows of its client is in here, so everything in it that can be checked is: it is alone, signed by its
own key, of a kind that Gramine makes, within its dates, and its quote was made for this key. That the other side *has*
the key is the handshake's proof. Whether the quote is genuine and acceptable is :mod:`ensconce.appraisal`'s to say.

What Gramine makes: P-384 since 1.4, RSA-3072 before; signed with SHA-256; the legacy evidence always, the TCG form
beside it since 1.8 (and then it alone counts, see :mod:`ensconce.evidence.certificate`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import check_lean, read_certificate
from ensconce.evidence.quote import parse_quote
from ensconce.ratls.verify import check_binding
from ensconce.times import utc_text

__all__ = ["GramineClient", "read_gramine_client"]

_KEYS = "ECDSA over P-256 or P-384, or RSA with 3072 bits and exponent 65537"
_REMEDY = "let Gramine's own library make the certificate"


@dataclass(frozen=True)
class GramineClient:
    """A TLS client whose certificate holds together; its quote has not been appraised.

    Attributes:
        spki_der: its key, DER SubjectPublicKeyInfo.
        quote: the quote that was made for this key.
        form: which kind of evidence it was.
    """

    spki_der: bytes
    quote: bytes
    form: Literal["tcg", "legacy"]


def read_gramine_client(certificate_der: bytes, at: int) -> GramineClient:
    """Read the certificate of a TLS client and check all that it says of itself.

    Args:
        certificate_der: the only certificate that the client sent.
        at: the time, seconds since 1970.

    Raises:
        EvidenceError: ``ratls.container``, ``ratls.key``, ``ratls.validity``, or whatever reading evidence and
            checking its binding says.
    """
    check_lean(certificate_der, "certificate")
    evidence = read_certificate(certificate_der)
    certificate = x509.load_der_x509_certificate(certificate_der)
    _check_key(certificate.public_key())
    _check_signature(certificate)
    _check_dates(certificate, at)
    check_binding(evidence, parse_quote(evidence.quote).body.report_data)
    return GramineClient(evidence.spki_der, evidence.quote, evidence.form)


def _check_key(key: PublicKeyTypes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        found = key.curve.name
    elif isinstance(key, rsa.RSAPublicKey):
        fits = key.key_size == 3072 and key.public_numbers().e == 65537
        found = f"RSA, {key.key_size} bits"
    else:
        fits, found = False, type(key).__name__
    if not fits:
        raise EvidenceError("ratls.key", "the client's key is of another kind", found=found, rule=_KEYS, remedy=_REMEDY)


def _check_signature(certificate: x509.Certificate) -> None:
    try:
        # Also compares issuer and subject.
        certificate.verify_directly_issued_by(certificate)
        algorithm = certificate.signature_hash_algorithm
    except Exception:  # cryptography has half a dozen kinds for what does not hold
        algorithm = None
    if not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise EvidenceError(
            "ratls.container",
            "the client's certificate is not signed by its own key",
            rule="self-signed, over SHA-256, SHA-384 or SHA-512",
            remedy=_REMEDY,
        )


def _check_dates(certificate: x509.Certificate, at: int) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= dt.datetime.fromtimestamp(at, dt.UTC) <= last:
        raise EvidenceError(
            "ratls.validity",
            "the client's certificate is not valid now",
            found=f"it is {utc_text(at)}",
            rule=f"{utc_text(int(first.timestamp()))} to {utc_text(int(last.timestamp()))}",
            remedy="set RA_TLS_CERT_TIMESTAMP_NOT_BEFORE and _AFTER in the manifest, or neither; check this clock",
        )
