"""Judges the certificate that a TLS server showed, before it is sent a byte.

The evidence says which code has the key; the certificate says for which name, and until when. The name and the dates
can be believed because that code, once accepted, shows no certificate but its own.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EvidenceError
from ensconce.evidence.spki import spki_of
from ensconce.ratls.verify import evidence_of
from ensconce.times import utc_text
from ensconce.trail import held, recording, step

__all__ = ["Accepted", "judge_leaf", "replica_id"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A certificate that was accepted.

    Attributes:
        acceptance: the policy's yes, with the verdict that it judged.
        replica_id: names the replica by its key, see :func:`replica_id`.
        certificate: the leaf.
    """

    acceptance: Acceptance
    replica_id: str
    certificate: x509.Certificate

    @property
    def valid_until(self) -> int:
        """When the certificate, or what it was judged with, comes to its end, seconds since 1970."""
        return min(int(self.certificate.not_valid_after_utc.timestamp()), self.acceptance.valid_until)


def judge_leaf(der: bytes, server_name: str, appraiser: Appraiser, authority: x509.Certificate | None) -> Accepted:
    """Accept the certificate of a server, or say why not.

    Order: evidence and its binding to the key; validity; name; issuer; then the appraisal, which may fetch collateral.

    Args:
        der: the leaf, as the server sent it.
        server_name: the DNS name that the client asked for.
        appraiser: judges the quote; its clock is used for the dates.
        authority: the certificate that must have signed the leaf. Evidence has no date of its own: a short-lived
            certificate of the owner's authority is what shows that the owner stood by this key lately. ``None``
            accepts any issuer, and a key that once was in an accepted enclave for ever.

    Raises:
        EvidenceError: the evidence is missing, malformed, not genuine or about another key; ``certificate.validity``,
            ``certificate.name``, ``certificate.issuer``.
        RefusedError: the policy refuses the enclave.
        UnreachableError: collateral is not to be had.
    """
    with step("evidence"):
        quote = evidence_of(der)
    with step("certificate"):
        certificate = x509.load_der_x509_certificate(der)
        now = dt.datetime.fromtimestamp(appraiser.now(), dt.UTC)
        _check_validity(certificate, now, "certificate.validity", "the server's certificate")
        _check_name(certificate, server_name)
        if authority is not None:
            _check_issuer(certificate, authority, now)
    return Accepted(appraiser.appraise(quote), replica_id(certificate), certificate)


def replica_id(certificate: x509.Certificate) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the key, DER SubjectPublicKeyInfo."""
    return hashlib.sha256(spki_of(certificate.public_key())).hexdigest()[:16]


def _check_validity(certificate: x509.Certificate, now: dt.datetime, check: str, what: str) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        early = now < begin
        raise EvidenceError(
            check,
            f"{what} {'is not valid yet' if early else 'has expired'}",
            found=f"valid from {begin:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC",
            rule=f"valid at {now:%Y-%m-%d %H:%M:%S} UTC",
            remedy="check this machine's clock" if early else "restart the replica, which makes it get a new one",
        )
    if recording():
        ends = int(end.timestamp())
        found = f"{utc_text(begin.timestamp())} to {utc_text(ends)}"
        held(check, f"dates of {what}", found=found, rule=f"valid at {utc_text(now.timestamp())}", end=ends)


def _check_name(certificate: x509.Certificate, server_name: str) -> None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = []
    # Exactly: a wildcard would let one service's certificate stand for another's.
    if server_name.lower() not in (name.lower() for name in found):
        raise EvidenceError(
            "certificate.name",
            "the server's certificate is for another name",
            found=", ".join(found)[:200] or "no DNS name",
            rule=server_name,
            remedy="ask for the name that the service has, or connect to another address",
        )
    held("certificate.name", "name in the certificate", found=", ".join(found), rule=server_name)


def _check_issuer(certificate: x509.Certificate, authority: x509.Certificate, now: dt.datetime) -> None:
    _check_validity(authority, now, "certificate.issuer", "the owner's certificate authority")
    try:
        authority_for = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        authority_for = False
    if not authority_for:
        raise EvidenceError(
            "certificate.issuer",
            "the server's certificate was not issued by the owner's authority",
            found=certificate.issuer.rfc4514_string()[:200] or "an empty name",
            rule=authority.subject.rfc4514_string(),
            remedy="use the ca.pem of the owner whose service this is",
        )
    if recording():
        found, rule = certificate.issuer.rfc4514_string(), f"signed by {authority.subject.rfc4514_string()}"
        held("certificate.issuer", "issuer of the certificate", found=found, rule=rule)
