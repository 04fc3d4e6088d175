"""Certificate chains of DCAP: which certificates, in which order, under which names.

Intel's own verification library accepts exactly these shapes, and so does this module; dcap-qvl alone would follow any
chain to the root, and let a PCK key sign TCB information.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ensconce.errors import EvidenceError

__all__ = [
    "CRL_CHAIN",
    "PCK_CHAIN",
    "PCK_PLATFORM_CA_NAME",
    "SIGNER_CHAIN",
    "certificates_in",
    "check_root",
    "check_shape",
    "common_name",
    "issued_by",
    "to_pem",
]

ROOT_NAME = "Intel SGX Root CA"
TCB_SIGNING_NAME = "Intel SGX TCB Signing"
PCK_NAME = "Intel SGX PCK Certificate"
PCK_PLATFORM_CA_NAME = "Intel SGX PCK Platform CA"
PCK_PROCESSOR_CA_NAME = "Intel SGX PCK Processor CA"
_PCK_CAS = frozenset({PCK_PLATFORM_CA_NAME, PCK_PROCESSOR_CA_NAME})

PCK_CHAIN = (frozenset({PCK_NAME}), _PCK_CAS, frozenset({ROOT_NAME}))
SIGNER_CHAIN = (frozenset({TCB_SIGNING_NAME}), frozenset({ROOT_NAME}))
CRL_CHAIN = (_PCK_CAS, frozenset({ROOT_NAME}))

_MAX_CHAIN_SIZE = 32 * 1024
_MAX_CERTIFICATES = 4
_BLOCK = r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[ \t\r\n]*"
_CHAIN = re.compile(rf"(?:{_BLOCK})+\0?")


def certificates_in(pem: bytes, check: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM chain, in order, with nothing between or around them.

    Args:
        pem: the chain; one NUL at the end is allowed, as Intel's quoting library leaves it there.
        check: name of the check, should it fail.

    Raises:
        EvidenceError: no such chain, or more than four certificates.
    """

    def malformed(problem: str) -> NoReturn:
        raise EvidenceError(
            check,
            f"the certificate chain cannot be read: {problem}",
            found=f"{len(pem)} bytes",
            rule=f"PEM certificates and nothing else, at most {_MAX_CERTIFICATES}",
            remedy="fetch the collateral, or the quote, anew",
        ) from None

    if len(pem) > _MAX_CHAIN_SIZE:
        malformed("it is too long")
    try:
        text = pem.decode("ascii")
    except UnicodeDecodeError:
        malformed("it is not ASCII")
    if not _CHAIN.fullmatch(text):
        malformed("it is not PEM")
    blocks = re.findall(_BLOCK, text)
    if len(blocks) > _MAX_CERTIFICATES:
        malformed("it has too many certificates")
    try:
        return tuple(_certificate(_decoded("".join(block.split()))) for block in blocks)
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        malformed(str(error)[:100])


def _decoded(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    # Python overlooks the bits that the last digit has too many (RFC 4648, section 3.5); other readers do not.
    if base64.b64encode(data).decode() != text:
        raise ValueError("its base64 is not canonical")
    return data


def check_shape(chain: tuple[x509.Certificate, ...], shape: tuple[frozenset[str], ...], check: str) -> None:
    """Check that a chain has the right number of certificates, names and links; signatures are not looked at.

    Args:
        chain: leaf first.
        shape: for each certificate the common names that it may have.
        check: name of the check, without its last part.

    Raises:
        EvidenceError: ``<check>.shape``.
    """
    names = [common_name(certificate) for certificate in chain]
    linked = all(below.issuer == above.subject for below, above in zip(chain, (*chain[1:], chain[-1]), strict=True))
    right = len(chain) == len(shape) and all(name in allowed for name, allowed in zip(names, shape, strict=True))
    if not right or not linked:
        raise EvidenceError(
            f"{check}.shape",
            "the certificate chain does not have the shape that DCAP prescribes",
            found=" <- ".join(names)[:300],
            rule=" <- ".join(" or ".join(sorted(allowed)) for allowed in shape),
            remedy="fetch the collateral, or the quote, anew; no platform's vendor makes chains of another shape",
        )


def check_root(chain: tuple[x509.Certificate, ...], fingerprint: str, check: str) -> None:
    """Check that a chain ends in the certificate with this SHA-256, hexadecimal.

    Raises:
        EvidenceError: ``<check>.root``.
    """
    found = hashlib.sha256(chain[-1].public_bytes(Encoding.DER)).hexdigest()
    if found != fingerprint:
        raise EvidenceError(
            f"{check}.root",
            "the certificate chain hangs from another root",
            found=found,
            rule=fingerprint,
            remedy="verify under the root of the platform that made the quote: Intel's for real hardware, "
            "the simulated platform's own otherwise",
        )


@functools.lru_cache(maxsize=256)
def _certificate(der: bytes) -> x509.Certificate:
    # Verification meets the same issuers again and again; certificates do not change, and failures are not kept.
    certificate = x509.load_der_x509_certificate(der)
    # cryptography reads names, times and keys when they are first asked for: ask now, where failure has a name.
    _ = (certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    certificate.public_key()
    return certificate


# What a key signed does not change either.
@functools.lru_cache(maxsize=256)
def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def common_name(certificate: x509.Certificate) -> str:
    """Subject common name, fit for a terminal; empty when there is not exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    return name if name.isprintable() else ascii(name)


def to_pem(chain: tuple[x509.Certificate, ...]) -> str:
    """A chain as PEM again, in the one form that leaves a reader no choice."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain)
