"""A machine's first day: it makes its keys, and has a vendor elsewhere certify them (:mod:`.vendor`)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.platform.simulated.machine import Machine
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.vendor import MACHINES, ROOT

__all__ = ["enrol", "root_name_at"]

_LIMIT = 64 * 1024
_TIMEOUT_S = 5.0
_PAUSE_S = 0.5
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ensconce simulated machine")])


def enrol(vendor: str, patience: float = 60.0, sleep: Callable[[float], None] = time.sleep) -> Machine:
    """A new machine, with keys that no other has and that never leave this process.

    Args:
        vendor: the service's base URL, ``http://HOST:PORT``.
        patience: seconds to go on trying for while nobody answers; in a cluster, everything starts at once.
        sleep: waits, in seconds.

    Raises:
        InputError: ``vendor.url``: this is no such URL.
        UnreachableError: ``vendor.connect``, ``vendor.status``.
        EvidenceError: ``vendor.chain``: what it answers is no chain for this machine's key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_SUBJECT).sign(key, hashes.SHA256())
    pem = request.public_bytes(Encoding.PEM)
    until = time.monotonic() + patience
    while True:
        try:
            chain = _ask(vendor, MACHINES, pem)
            break
        except UnreachableError as error:
            if error.check != "vendor.connect" or time.monotonic() > until:
                raise
        sleep(_PAUSE_S)
    root = _check(chain, key.public_key())
    attestation_key = ec.generate_private_key(ec.SECP256R1())
    return Machine(
        root_name=_root_name(root),
        attestation_key=attestation_key,
        pck_key=key,
        pck_chain="".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain),
        identifier=Machine.identifier_of(attestation_key),
        cpu_svn=bytes(SimulatedVendor.COMPONENTS),
        pce_svn=SimulatedVendor.PCE_SVN,
    )


def root_name_at(vendor: str) -> str:
    """The root of the vendor at a URL as policies name it, `simulated:<sha256>`; believed as far as the network is.

    Raises:
        InputError: ``vendor.url``.
        UnreachableError: ``vendor.connect``, ``vendor.status``.
        EvidenceError: ``vendor.chain``: it answers with something else than one certificate.
    """
    found = _ask(vendor, ROOT, None)
    if len(found) != 1:
        raise _no_chain(f"{len(found)} certificates", "one root")
    return _root_name(found[0])


def _ask(vendor: str, path: str, body: bytes | None) -> list[x509.Certificate]:
    url = _url(vendor).join(path)
    data = b""
    try:
        with httpx.stream(
            "GET" if body is None else "POST", url, content=body, timeout=_TIMEOUT_S, trust_env=False
        ) as response:
            if response.status_code != 200:
                raise UnreachableError(
                    "vendor.status",
                    f"the simulated vendor at {vendor} refuses",
                    found=f"HTTP status {response.status_code}",
                    remedy="check that the URL is that of `ensconce simulated serve`",
                )
            for part in response.iter_raw():
                data += part
                if len(data) > _LIMIT:
                    raise _no_chain("a long answer", f"at most {_LIMIT} bytes")
    except httpx.HTTPError as error:
        raise UnreachableError(
            "vendor.connect",
            f"there is no simulated vendor at {vendor}",
            found=str(error)[:200] or type(error).__name__,
            remedy="start `ensconce simulated serve`, or correct the URL",
        ) from error
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise _no_chain("something else", "certificates in PEM") from error


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError("vendor.url", "this is no URL of a vendor", found=ascii(text)[:200], rule="http://HOST:PORT")
    return url


def _check(chain: list[x509.Certificate], key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    """The root of a chain for ``key``; whether anybody accepts that root is for policies to say."""
    if len(chain) != 3 or chain[0].public_key() != key:
        raise _no_chain(f"{len(chain)} certificates", "this machine's PCK certificate, its CA's and the root's")
    try:
        for certificate, issuer in zip(chain, (*chain[1:], chain[-1]), strict=True):
            certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise _no_chain("certificates that do not follow from each other", "a chain") from error
    return chain[-1]


def _root_name(root: x509.Certificate) -> str:
    return "simulated:" + hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


def _no_chain(found: str, rule: str) -> EvidenceError:
    return EvidenceError(
        "vendor.chain",
        "the simulated vendor's answer is no certificate chain for this machine",
        found=found,
        rule=rule,
        remedy="check that the URL is that of `ensconce simulated serve`",
    )
