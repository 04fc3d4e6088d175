"""Roots of trust: who vouches for the quoting enclaves.

There is one genuine root, Intel's, known by its fingerprint. Every other certificate makes a simulated root, whose name
carries the fingerprint, so that a policy must name exactly that one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.chains import certificates_in, issued_by
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.pck import chain_in
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import Quote

__all__ = [
    "INTEL_ROOT_SHA256",
    "IntelRoot",
    "SimulatedRoot",
    "TrustRoot",
    "claimed_root",
    "name_of_root",
    "parse_root_certificate",
    "parse_root_name",
    "root_named",
]

INTEL_ROOT_SHA256 = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER certificate *Intel SGX Root CA* (2018 to 2049); dcap-qvl has the certificate compiled in."""

_NAME = re.compile(r"intel|simulated:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class IntelRoot:
    """Intel's root, under which real hardware is."""

    @property
    def name(self) -> str:
        """``intel``."""
        return "intel"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER certificate, hexadecimal."""
        return INTEL_ROOT_SHA256


@dataclass(frozen=True, slots=True)
class SimulatedRoot:
    """Any root but Intel's: what hangs from it is protected by nobody's hardware.

    Attributes:
        certificate_der: the self-signed root certificate.

    Raises:
        InputError: it is Intel's own root certificate.
    """

    certificate_der: bytes

    def __post_init__(self) -> None:
        if self.fingerprint == INTEL_ROOT_SHA256:
            raise InputError(
                "root.intel",
                "Intel's root certificate cannot be used as a simulated root",
                remedy="name the root 'intel'",
            )

    @property
    def name(self) -> str:
        """``simulated:`` and the fingerprint."""
        return f"simulated:{self.fingerprint}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER certificate, hexadecimal."""
        return hashlib.sha256(self.certificate_der).hexdigest()


TrustRoot = IntelRoot | SimulatedRoot


def parse_root_name(name: str) -> str:
    """Check the name of a root, as a policy has it, and return it.

    Raises:
        InputError: neither ``intel`` nor ``simulated:`` and 64 lower-case hexadecimal digits.
    """
    if not _NAME.fullmatch(name) or name == f"simulated:{INTEL_ROOT_SHA256}":
        raise InputError(
            "root.name",
            "this names no root",
            found=name[:100],
            rule="intel, or simulated:<SHA-256 of the root certificate, 64 lower-case hexadecimal digits>",
            remedy="take the name that the simulated platform printed, or intel for real hardware",
        )
    return name


def parse_root_certificate(data: bytes) -> SimulatedRoot:
    """The root in a certificate file, PEM or DER; never Intel's, which goes by its name.

    Raises:
        InputError: not one self-signed certificate, or Intel's.
    """
    try:
        pem = data.lstrip().startswith(b"-----BEGIN")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        self_signed = issued_by(certificate, certificate)
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        raise _no_root(str(error)[:200]) from error
    if not self_signed:
        raise _no_root("not signed by its own key")
    return SimulatedRoot(certificate.public_bytes(Encoding.DER))


def _no_root(found: str) -> InputError:
    return InputError(
        "root.certificate",
        "this is no root certificate",
        found=found,
        rule="one self-signed X.509 certificate, PEM or DER",
        remedy="give root.pem of the simulated platform, or the name intel",
    )


def root_named(name: str, collateral: Collateral) -> TrustRoot:
    """The root of that name; a simulated one is looked up, by its fingerprint, among the issuers of the collateral.

    Raises:
        InputError: this names no root.
        EvidenceError: the collateral does not hang from that root.
    """
    if parse_root_name(name) == "intel":
        return IntelRoot()
    for chain, what in (
        (collateral.tcb_info_issuer_chain, "tcb_info"),
        (collateral.qe_identity_issuer_chain, "qe_identity"),
        (collateral.pck_crl_issuer_chain, "pck_crl"),
    ):
        for certificate in certificates_in(chain.encode(), f"collateral.{what}.chain.format"):
            root = certificate.public_bytes(Encoding.DER)
            if hashlib.sha256(root).hexdigest() == name.removeprefix("simulated:"):
                return SimulatedRoot(root)
    raise EvidenceError(
        "collateral.root",
        "the collateral does not hang from the root that is asked for",
        rule=name,
        remedy="fetch the collateral from the platform that this root belongs to",
    )


def claimed_root(quote: Quote) -> str:
    """Name of the root that a quote's own chain ends in: a claim, good for choosing a root to verify under.

    Raises:
        EvidenceError: the quote has no certificate chain.
    """
    return name_of_root(chain_in(quote)[-1])


def name_of_root(certificate: x509.Certificate) -> str:
    """The name that a root goes by if this is its certificate."""
    fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return "intel" if fingerprint == INTEL_ROOT_SHA256 else f"simulated:{fingerprint}"
