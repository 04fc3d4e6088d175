"""Judges whether evidence in certificates and requests belongs to the key that they are for.

Reading is :mod:`ensconce.evidence.certificate`; whether the quote is genuine and acceptable is
:mod:`ensconce.appraisal`. Here is the link between the two: the quote's report data is the hash of the claims, and the
claims hold the hash of the key (Interoperable RA-TLS; Gramine's legacy form hashes the key directly).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import (
    OID_TCG,
    CertificateEvidence,
    check_lean,
    evidence_extension,
    read_certificate,
    read_request,
)
from ensconce.evidence.claims import HASHES
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.spki import spki_of
from ensconce.trail import exhibit, held

__all__ = [
    "SignedRequest",
    "check_binding",
    "evidence_of",
    "key_in_container",
    "read_signed_request",
]


def check_binding(evidence: CertificateEvidence, report_data: bytes) -> None:
    """Check that the quote with this report data was made for the key that the evidence came with.

    Args:
        evidence: as it was read from a certificate or a request.
        report_data: the 64 bytes in the evidence's own quote.

    Raises:
        EvidenceError: ``ratls.pubkey_hash`` the claims are about another key; ``ratls.nonce`` they answer a challenge
            that was never made; ``ratls.report_data`` the quote was not made for these claims.
    """
    if evidence.claims is None:
        hashed = hashlib.sha256(evidence.spki_der).digest()
    else:
        key_hash = hashlib.new(HASHES[evidence.claims.hash_algorithm], evidence.spki_der).digest()
        if not hmac.compare_digest(evidence.claims.pubkey_hash, key_hash):
            raise EvidenceError(
                "ratls.pubkey_hash",
                "the evidence is about another key than the certificate",
                found=evidence.claims.pubkey_hash.hex(),
                rule=f"hash of the certificate's key: {key_hash.hex()}",
                remedy="this is how a copied quote looks; let the enclave make its own certificate",
            )
        if evidence.claims.nonce is not None:
            raise EvidenceError(
                "ratls.nonce",
                "the claims answer a challenge that nobody made",
                rule="no nonce in the claims of a certificate",
                remedy="let the enclave make a new certificate without a nonce",
            )
        held(
            "ratls.pubkey_hash",
            "key that the evidence is about",
            found=evidence.claims.pubkey_hash.hex(),
            rule=f"hash of the certificate's key: {key_hash.hex()}",
        )
        hashed = hashlib.sha256(evidence.claims.encoded).digest()
    if not hmac.compare_digest(report_data, hashed + bytes(32)):
        raise EvidenceError(
            "ratls.report_data",
            "the quote was made for something else than this certificate",
            found=report_data.hex(),
            rule=f"report data {hashed.hex()} and 32 zero bytes",
            remedy="this is how a copied quote looks; let the enclave make its own certificate",
        )
    made_for = "the certificate's key" if evidence.claims is None else "the claims about the certificate's key"
    held(
        "ratls.report_data",
        "what the quote was made for",
        found=report_data.hex(),
        rule=f"hash of {made_for}: {hashed.hex()} and 32 zero bytes",
    )


def evidence_of(certificate_der: bytes) -> bytes:
    """The quote in a certificate, after a check that it was made for the certificate's key.

    The quote is still a stranger's: appraise it. Nor does it show that the other side *has* the key (a TLS handshake
    does) or that the evidence is fresh (the certificate's issuer and its short life do).

    Raises:
        EvidenceError: no evidence, malformed evidence, or evidence about another key.
    """
    evidence = read_certificate(certificate_der)
    exhibit("quote", evidence.quote)
    check_binding(evidence, parse_quote(evidence.quote).body.report_data)
    return evidence.quote


@dataclass(frozen=True)
class SignedRequest:
    """A certificate request whose form and signature are right; its evidence has not been appraised.

    Attributes:
        public_key: the P-256 key that the certificate is asked for; the requester has its private key.
        spki_der: the same as DER SubjectPublicKeyInfo.
        domain: the DNS name that is asked for.
        evidence: what it says about the key.
        extension: the evidence extension, to be copied into the certificate.
    """

    public_key: ec.EllipticCurvePublicKey
    spki_der: bytes
    domain: str
    evidence: CertificateEvidence
    extension: x509.UnrecognizedExtension


def read_signed_request(der: bytes) -> SignedRequest:
    """Read a certificate request and check its signature.

    Raises:
        EvidenceError: ``request.signature``, ``request.key``, ``request.contents``, or whatever reading evidence says.
    """
    check_lean(der, "certificate request")
    evidence = read_request(der)
    request = x509.load_der_x509_csr(der)
    # The kind of key first: a stranger can choose one whose signatures take a hundred times as long to check.
    public_key = request.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise EvidenceError("request.key", "the certificate request is for a key of another kind", rule="ECDSA, P-256")
    try:
        signed = request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        signed = False
    if not signed:
        raise EvidenceError("request.signature", "the certificate request is not signed by its own key")
    names = [e.value for e in request.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    others = [e.oid for e in request.extensions if e.oid not in (OID_TCG, x509.SubjectAlternativeName.oid)]
    domains = [name.value for name in names[0] if isinstance(name, x509.DNSName)] if names else []
    exact = not others and len(names) == 1 and len(domains) == len(list(names[0])) == 1
    if not exact or list(request.subject) or len(request.attributes) != 1 or evidence.claims is None:
        raise EvidenceError(
            "request.contents",
            "the certificate request asks for something that is not given",
            rule=f"empty subject; one DNS name; the evidence extension {OID_TCG.dotted_string}; nothing else",
        )
    return SignedRequest(
        public_key=public_key,
        spki_der=spki_of(public_key),
        domain=domains[0],
        evidence=evidence,
        extension=evidence_extension(evidence.quote, evidence.claims.encoded),
    )


def key_in_container(certificate_der: bytes) -> bytes:
    """The key, DER SubjectPublicKeyInfo, of a self-signed certificate that a TLS client came with.

    Raises:
        EvidenceError: not a certificate, too long, not signed by its own key, or not over P-256.
    """
    try:
        check_lean(certificate_der, "certificate")
    except EvidenceError as error:
        raise EvidenceError("ratls.container", error.problem, rule=error.rule, remedy=error.remedy) from None
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        public_key = certificate.public_key()
    except Exception:  # cryptography has half a dozen kinds for DER that is not right
        raise EvidenceError("ratls.container", "the client's certificate cannot be read") from None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise EvidenceError("ratls.container", "the client's key is of another kind", rule="ECDSA, P-256")
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # as above
        raise EvidenceError(
            "ratls.container", "the client's certificate is not signed by its own key", rule="self-signed, ECDSA"
        ) from None
    return spki_of(public_key)
