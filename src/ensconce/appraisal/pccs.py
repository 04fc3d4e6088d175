"""Collateral over HTTP: a client of Intel's provisioning certification service (PCS), version 4, and of its caches.

Sources: Intel SGX and TDX provisioning certification service API, version 4; the PCCS of Intel's DCAP repository. Both
have the PCK revocation lists under ``/sgx/certification/v4`` alone, and TCB info and QE identity under ``/sgx`` and
``/tdx``, with the same headers. A PCCS adds ``/rootcacrl``; Intel's own service has none, and the root's revocation
list is then where the root certificate says it is.

Nothing fetched is trusted because of where it came from: see :mod:`ensconce.appraisal.vetting`.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import Collection
from pathlib import Path

from cryptography import x509

from ensconce.appraisal.chains import certificates_in, issued_by
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.http import Answer, Asker, Pace, StatusError, tls_context
from ensconce.appraisal.root import name_of_root
from ensconce.errors import EvidenceError, UnreachableError

__all__ = ["fetch_collateral"]

_MAX_CHAIN = 32 * 1024
_MAX_DER_URL = 2048
_PATH = "/{tee}/certification/v4"
_SPACE = (" ", "\t", "\r", "\n")
_STATUSES = {
    400: "it cannot read the question",
    401: "it wants a credential, which no service of this kind does",
    404: "it has nothing for this platform",
    410: "it no longer has this",
    429: "it was asked too often",
    460: "it found that what it has was tampered with",
    461: "it does not know this platform",
    462: "it has no certificates for this platform",
    502: "it cannot reach the vendor's service just now",
    503: "it cannot answer just now",
    504: "it cannot reach the vendor's service just now",
}


def fetch_collateral(
    base_url: str,
    platform: PlatformKind,
    *,
    roots: Collection[str],
    ca_file: Path | None = None,
    pace: Pace | None = None,
) -> Collateral:
    """Fetch the collateral for one kind of platform. Blocks; not for a thread in which an event loop runs.

    Args:
        base_url: where ``/sgx/certification/v4`` is, e.g. ``https://localhost:8081``; that path may be on it.
        platform: for which.
        roots: names of the roots that are accepted; only such a root's word on where its revocation list is counts.
        ca_file: PEM file of the authorities to expect the server's TLS certificate from, instead of the system's.
        pace: how long, how often.

    Raises:
        UnreachableError: the server cannot be reached in time, refuses, or answers with something else.
        InputError: ``base_url`` is no URL, or ``ca_file`` cannot be read.
    """
    pace = pace or Pace()
    context = tls_context(ca_file)

    async def fetch() -> Collateral:
        async with asyncio.timeout(pace.total_s), Asker(context, pace, _STATUSES) as asker:
            return await _fetch(asker, _base(base_url), platform, roots, pace)

    try:
        return asyncio.run(fetch())
    except TimeoutError as error:
        raise UnreachableError(
            "pccs.time",
            f"{base_url} gave no collateral: it is too slow",
            found=f"over {pace.total_s} s",
            remedy="check the server, and the way to it",
        ) from error


def _base(url: str) -> str:
    url = url.rstrip("/")
    # As sgx_default_qcnl.conf has it.
    return url.removesuffix(_PATH.format(tee="sgx")).rstrip("/")


async def _fetch(asker: Asker, base: str, platform: PlatformKind, roots: Collection[str], pace: Pace) -> Collateral:
    sgx, own = base + _PATH.format(tee="sgx"), base + _PATH.format(tee=platform.tee)
    pck_crl = await asker.get(f"{sgx}/pckcrl", {"ca": platform.ca, "encoding": "der"})
    tcb_info = await asker.get(f"{own}/tcb", {"fmspc": platform.fmspc, "update": "standard"})
    qe_identity = await asker.get(f"{own}/qe/identity", {"update": "standard"})
    pck_crl_chain = _chain(pck_crl, "SGX-PCK-CRL-Issuer-Chain")
    try:
        root_ca_crl = await asker.get(f"{sgx}/rootcacrl")
    except StatusError as error:
        if error.status != 404:
            raise
        url = _distribution_point(pck_crl_chain, roots, error)
        # The system's authorities: the PCCS's own says nothing about the vendor's host.
        async with Asker(tls_context(None), pace, _STATUSES) as elsewhere:
            root_ca_crl = await elsewhere.get(url)
    tcb_info_text, tcb_info_signature = _signed(tcb_info, "tcbInfo")
    qe_identity_text, qe_identity_signature = _signed(qe_identity, "enclaveIdentity")
    return Collateral(
        pck_crl_issuer_chain=pck_crl_chain,
        root_ca_crl=_crl(root_ca_crl),
        pck_crl=_crl(pck_crl),
        tcb_info_issuer_chain=_chain(tcb_info, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"),
        tcb_info=tcb_info_text,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=_chain(qe_identity, "SGX-Enclave-Identity-Issuer-Chain"),
        qe_identity=qe_identity_text,
        qe_identity_signature=qe_identity_signature,
    )


def _distribution_point(chain: str, roots: Collection[str], missing: StatusError) -> str:
    """Where an accepted root says that its revocation list is.

    The certificate is the accepted one by its fingerprint, so the URL is the vendor's word and not the server's.
    """

    def nowhere(found: str, rule: str) -> UnreachableError:
        return UnreachableError(
            "pccs.root_ca_crl",
            f"{missing.problem}; and its chain does not say where else the root's revocation list is",
            found=found,
            rule=rule,
            remedy="use a server that has /rootcacrl, or accept the root that this collateral hangs from",
        )

    try:
        root = certificates_in(chain.encode(errors="replace"), "pccs.issuer_chain")[-1]
        name = name_of_root(root)
        if name not in roots or not issued_by(root, root):
            raise nowhere(name, f"a root that is accepted: {', '.join(roots)}")
        points = root.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        urls = [str(name.value) for point in points for name in point.full_name or ()]
    except (EvidenceError, x509.ExtensionNotFound, ValueError) as error:
        raise nowhere(str(error)[:200], "a root certificate with a CRL distribution point") from error
    url = next((url for url in urls if url.startswith(("https://", "http://")) and len(url) <= _MAX_DER_URL), None)
    if url is None:
        raise nowhere(", ".join(urls)[:200] or "none", "a distribution point at http or https")
    return url


def _chain(answer: Answer, *names: str) -> str:
    """The issuer chain in one of these headers, PEM out of URL encoding."""
    value = next((answer.headers[name] for name in names if name in answer.headers), None)
    if value is None or len(value) > _MAX_CHAIN:
        raise _useless("pccs.issuer_chain", answer, f"its answer has no usable header {names[0]}")
    return urllib.parse.unquote(value)


def _crl(answer: Answer) -> bytes:
    """A revocation list in DER; a PCCS gives the root's in hexadecimal digits, of which the first is 3."""
    if answer.body.startswith(b"\x30"):
        return answer.body
    try:
        return bytes.fromhex(answer.body.decode("ascii").strip().strip('"'))
    except ValueError:
        raise _useless("pccs.crl", answer, "its answer is no revocation list") from None


def _signed(answer: Answer, member: str) -> tuple[str, bytes]:
    """The exact text of a signed member, and the signature over it."""
    try:
        text = answer.body.decode()
        value = _member_text(text, member)
        return value, bytes.fromhex(json.loads(text)["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _useless("pccs.document", answer, f"its answer is not a signed {member}") from None


def _useless(check: str, answer: Answer, problem: str) -> UnreachableError:
    return UnreachableError(
        check,
        f"{answer.url} gave no collateral: {problem}",
        rule="Intel PCS API version 4",
        remedy="check the URL: is this a PCCS, or Intel's service?",
    )


def _member_text(text: str, member: str) -> str:
    """The text of one member of a JSON object, as it stands there, byte for byte.

    What was signed is these bytes, and no serialiser promises to write them again.

    Raises:
        ValueError: not a JSON object that has the member, an object, exactly once.
    """
    decoder = json.JSONDecoder()

    def past_space(at: int) -> int:
        while text.startswith(_SPACE, at):
            at += 1
        return at

    def past(at: int, token: str = "") -> int:
        """Where the text goes on after this token and the space around it."""
        at = past_space(at)
        if not text.startswith(token, at):
            raise ValueError(f"expected {token}")
        return past_space(at + len(token))

    found: list[str] = []
    at = past(0, "{")
    while True:
        name, at = decoder.raw_decode(text, at)
        start = past(at, ":")
        value, end = decoder.raw_decode(text, start)
        if name == member and isinstance(value, dict):
            found.append(text[start:end])
        at = past(end)
        if text.startswith("}", at):
            break
        at = past(at, ",")
    if len(found) != 1 or past(at, "}") != len(text):
        raise ValueError("not there once, or not alone")
    return found[0]
