"""The platform that all inputs are about, with every key: the same on every machine, and worth nothing anywhere.

The corpus is made with these keys. So a target can tell what was really signed or sealed from what only looks so, and
can sign or seal a bent input again to see what lies behind the check.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import ssl
from contextlib import suppress
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.root import SimulatedRoot
from ensconce.evidence.certificate import evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.report import TD_REPORT_15_EX_SIZE, Attributes, SgxReport, TdReport
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

__all__ = [
    "AUDIT_KEY",
    "DOMAIN",
    "LEAF",
    "NOW",
    "ROOT",
    "VENDOR",
    "WRAP_KEY",
    "certificate",
    "client_hello",
    "collateral",
    "quote",
    "report",
    "request",
    "td_quote",
    "td_report",
]

NOW = 1_790_000_000
DOMAIN = "digits.example.test"
VENDOR = SimulatedVendor(b"ensconce fuzzing, not a secret  ", NOW - 365 * 86_400)
ROOT = SimulatedRoot(VENDOR.root_certificate_der)
LEAF = VENDOR.key("leaf")
"""The key in the certificates and certificate requests."""
AUDIT_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"ensconce fuzzing: audit").digest())
WRAP_KEY = hashlib.sha256(b"ensconce fuzzing: wrap key").digest()[:16]

_DAY = 86_400


def report(report_data: bytes = bytes(range(64)), flags: int = Attributes.INIT | Attributes.MODE64BIT) -> SgxReport:
    """The report of a sound enclave on the machine."""
    return SgxReport(
        cpu_svn=VENDOR.cpu_svn,
        misc_select=0,
        isv_ext_prod_id=bytes(16),
        attributes=Attributes(flags, 3),
        mr_enclave=b"\x11" * 32,
        mr_signer=b"\x22" * 32,
        config_id=bytes(64),
        isv_prod_id=7,
        isv_svn=3,
        config_svn=0,
        isv_family_id=bytes(16),
        report_data=report_data,
    )


def quote(report_data: bytes = bytes(range(64)), recipe: QuoteRecipe | None = None) -> bytes:
    """A quote of the sound enclave."""
    return make_quote(VENDOR, report(report_data), recipe)


def td_report(size: int) -> TdReport:
    """The report of a sound trust domain: 584, 648 or 885 bytes."""
    body = bytearray(TD_REPORT_15_EX_SIZE)
    body[:16] = bytes(VENDOR.TEE_TCB_SVN)
    body[123] = 0x10  # TD attributes: SEPT_VE_DISABLE
    body[136:184] = b"\x33" * 48  # MRTD
    body[520:584] = bytes(range(64))
    body[584:600] = bytes(VENDOR.TEE_TCB_SVN)
    return TdReport.from_bytes(bytes(body[:size]))


def td_quote(size: int, version: Literal[4, 5] | None = None) -> bytes:
    """A quote of the sound trust domain."""
    return make_quote(VENDOR, td_report(size), QuoteRecipe(version=version))


@functools.cache
def collateral(tee: Literal["sgx", "tdx"] = "sgx") -> Collateral:
    """The collateral for the machine at :data:`NOW`."""
    return VENDOR.collateral(NOW, CollateralRecipe(tee=tee))


@functools.cache
def _claims() -> bytes:
    return encode_claims(spki_of(LEAF.public_key()))


@functools.cache
def _evidence() -> x509.UnrecognizedExtension:
    return evidence_extension(quote(hashlib.sha256(_claims()).digest() + bytes(32)), _claims())


def certificate(extension: x509.UnrecognizedExtension | None = None) -> bytes:
    """A self-signed certificate (DER) of :data:`LEAF` with an extension; the sound evidence by default."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fuzzing")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(LEAF.public_key())
        .serial_number(1)
        .not_valid_before(_moment(NOW - _DAY))
        .not_valid_after(_moment(NOW + _DAY))
        .add_extension(extension or _evidence(), critical=False)
        .sign(LEAF, hashes.SHA256(), ecdsa_deterministic=True)
        .public_bytes(Encoding.DER)
    )


def request(extension: x509.UnrecognizedExtension | None = None) -> bytes:
    """A certificate request (DER) for :data:`DOMAIN` as an enclave makes it; the sound evidence by default."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=True)
        .add_extension(extension or _evidence(), critical=False)
        .sign(LEAF, hashes.SHA256(), ecdsa_deterministic=True)
        .public_bytes(Encoding.DER)
    )


def client_hello(name: str | None, *, tls12: bool = False) -> bytes:
    """A ClientHello as OpenSSL writes it; it has random parts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    sent = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


def _moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
