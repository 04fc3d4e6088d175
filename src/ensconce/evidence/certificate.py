"""Evidence inside X.509: the extensions in which certificates and certificate requests carry a quote.

Two forms. *TCG*: OID 2.23.133.5.4.9, CBOR of quote and claims (:mod:`ensconce.evidence.claims`). *Legacy*, Gramine's
first: the bare quote, its report data beginning with SHA-256 of the key; the OID meant was 1.2.840.113741.1337.6, the
one that Gramine writes has the DER header of that OID inside its content and so reads 0.6.9.42.840.113741.1337.6.
When the TCG form is there it alone counts, so that nobody can turn a broken one into a fallback.
Whether the evidence is true, and binds the key, is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptography import x509

from ensconce.errors import EvidenceError
from ensconce.evidence.claims import Claims, encode_evidence, parse_claims, parse_evidence
from ensconce.evidence.der import length_beside
from ensconce.evidence.quote import MAX_QUOTE_SIZE
from ensconce.evidence.spki import spki_of

__all__ = [
    "OID_LEGACY_GRAMINE",
    "OID_LEGACY_MEANT",
    "OID_TCG",
    "CertificateEvidence",
    "check_lean",
    "evidence_extension",
    "read_certificate",
    "read_request",
]

OID_TCG = x509.ObjectIdentifier("2.23.133.5.4.9")
OID_LEGACY_GRAMINE = x509.ObjectIdentifier("0.6.9.42.840.113741.1337.6")
OID_LEGACY_MEANT = x509.ObjectIdentifier("1.2.840.113741.1337.6")

# The same as they are in DER: 2.23.133.5.4.9, 0.6.9.42.840.113741.1337.6, 1.2.840.113741.1337.6.
_DER_OIDS = tuple(bytes.fromhex(text) for text in ("678105050409", "06092a864886f84d8a3906", "2a864886f84d8a3906"))

_MAX_CERTIFICATE_SIZE = 64 * 1024
_MAX_BESIDE_EVIDENCE = 2048  # Gramine's longest, over RSA, takes 1,100


@dataclass(frozen=True, slots=True)
class CertificateEvidence:
    """What a certificate or a certificate request says about the place its key lives in.

    Attributes:
        quote: the quote's bytes, unread.
        claims: the claims beside it; ``None`` in the legacy form.
        form: which kind of extension it was in.
        spki_der: the certificate's public key, DER SubjectPublicKeyInfo.
    """

    quote: bytes
    claims: Claims | None
    form: Literal["tcg", "legacy"]
    spki_der: bytes


def evidence_extension(quote: bytes, claims: bytes) -> x509.UnrecognizedExtension:
    """The TCG evidence extension for a quote and its serialised claims; to be added as not critical."""
    return x509.UnrecognizedExtension(OID_TCG, encode_evidence(quote, claims))


def read_certificate(der: bytes) -> CertificateEvidence:
    """Read the evidence in a certificate.

    Raises:
        EvidenceError: not a certificate, or no evidence in it, or malformed evidence.
    """
    return _read(der, "certificate")


def read_request(der: bytes) -> CertificateEvidence:
    """Read the evidence in a certificate request (PKCS #10, extensionRequest attribute).

    Raises:
        EvidenceError: not a certificate request, or no evidence in it, or malformed evidence.
    """
    return _read(der, "certificate request")


def check_lean(der: bytes, what: Literal["certificate", "certificate request"]) -> None:
    """Check that there is little beside the evidence, before reading it: 10,000 names take 7 ms to read.

    For what strangers send to a server as often as they like.

    Raises:
        EvidenceError: ``certificate.size``, ``certificate.format``.
    """
    try:
        length = length_beside(der, _DER_OIDS, _MAX_BESIDE_EVIDENCE)
    except ValueError:
        raise EvidenceError("certificate.format", f"this is no {what} that can be read", rule="X.509 in DER") from None
    if length > _MAX_BESIDE_EVIDENCE:
        raise EvidenceError(
            "certificate.size",
            f"the {what} is too long",
            rule=f"at most {_MAX_BESIDE_EVIDENCE} bytes beside the evidence",
            remedy="leave out what is not needed: names and extensions",
        )


def _read(der: bytes, what: Literal["certificate", "certificate request"]) -> CertificateEvidence:
    if len(der) > _MAX_CERTIFICATE_SIZE:
        raise EvidenceError(
            "certificate.size",
            f"the {what} is too long",
            found=f"{len(der)} bytes",
            rule=f"at most {_MAX_CERTIFICATE_SIZE} bytes",
        )
    load = x509.load_der_x509_certificate if what == "certificate" else x509.load_der_x509_csr
    try:
        holder = load(der)
        spki = spki_of(holder.public_key())
        extensions = list(holder.extensions)
        # cryptography reads names and times when they are first asked for: ask now, where failure has a name.
        _ = holder.subject
        if isinstance(holder, x509.Certificate):
            _ = (holder.issuer, holder.not_valid_before_utc, holder.not_valid_after_utc)
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        raise EvidenceError(
            "certificate.format",
            f"this is no {what} that can be read",
            found=str(error)[:200],
            rule="X.509 version 3 in DER, each extension at most once",
            remedy="ask the other side for a new one",
        ) from error
    values = {
        extension.oid: extension.value.value
        for extension in extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    if OID_TCG in values:
        quote, claims = parse_evidence(values[OID_TCG])
        return CertificateEvidence(quote=quote, claims=parse_claims(claims), form="tcg", spki_der=spki)
    legacy = [values[oid] for oid in (OID_LEGACY_GRAMINE, OID_LEGACY_MEANT) if oid in values]
    if len(legacy) != 1:
        raise EvidenceError(
            "certificate.evidence",
            f"the {what} carries no evidence" if not legacy else f"the {what} carries evidence twice",
            rule=f"one extension {OID_TCG.dotted_string}, or one of Gramine's legacy form",
            remedy="connect to a server that runs in an enclave, or let the enclave make its own certificate",
        )
    if len(legacy[0]) > MAX_QUOTE_SIZE:
        raise EvidenceError(
            "quote.size",
            "the quote is too long",
            found=f"{len(legacy[0])} bytes",
            rule=f"at most {MAX_QUOTE_SIZE} bytes",
        )
    return CertificateEvidence(quote=legacy[0], claims=None, form="legacy", spki_der=spki)
