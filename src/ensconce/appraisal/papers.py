"""Collateral, read: is it whole, of the shapes that DCAP has, and of one root? Signatures come later, in dcap-qvl.

What is found depends on the collateral, the kind of quote and the root alone, not on the quote or the time. The same
collateral serves for a day and thousands of quotes, so what was read last is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]  # it has stubs, but no py.typed
from cryptography import x509

from ensconce.appraisal.chains import (
    CRL_CHAIN,
    SIGNER_CHAIN,
    certificates_in,
    check_root,
    check_shape,
    issued_by,
    to_pem,
)
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.documents import Document, TcbInfo, read_qe_identity, read_tcb_info
from ensconce.appraisal.pck import Pck
from ensconce.appraisal.validity import Window, certificate_windows, seconds
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import Tee

__all__ = ["Papers", "check_fit", "read_papers", "refused"]


@dataclass(frozen=True, slots=True)
class Papers:
    """Collateral that fits together.

    Attributes:
        tcb_info: TCB info.
        qe_identity: identity of the quoting enclave.
        chains: by the name of the check, the issuers' certificate chains.
        crls: by the name of the check, the revocation lists.
        windows: when all of these are valid.
        bundle: the same for dcap-qvl.
    """

    tcb_info: TcbInfo
    qe_identity: Document
    chains: Mapping[str, tuple[x509.Certificate, ...]]
    crls: Mapping[str, x509.CertificateRevocationList]
    windows: tuple[Window, ...]
    bundle: Any


# Keys are compared member by member, not by a digest alone. Refusals are not kept.
@functools.lru_cache(maxsize=8)
def read_papers(collateral: Collateral, tee: Tee, root: str) -> Papers:
    """Read collateral for quotes of one kind.

    Args:
        collateral: what was fetched.
        tee: kind of quote.
        root: SHA-256 of the root certificate that all of it must hang from, hexadecimal.

    Raises:
        EvidenceError: ``collateral.*``.
    """
    chains: dict[str, tuple[x509.Certificate, ...]] = {}
    for name, pem, shape in (
        ("tcb_info", collateral.tcb_info_issuer_chain, SIGNER_CHAIN),
        ("qe_identity", collateral.qe_identity_issuer_chain, SIGNER_CHAIN),
        ("pck_crl", collateral.pck_crl_issuer_chain, CRL_CHAIN),
    ):
        check = f"collateral.{name}.chain"
        chains[check] = certificates_in(pem.encode(errors="replace"), f"{check}.format")
        check_shape(chains[check], shape, check)
        check_root(chains[check], root, check)
    for name in ("tcb_info", "qe_identity"):
        size = len(getattr(collateral, f"{name}_signature"))
        if size != 64:
            raise refused(f"collateral.{name}.signature", "the signature has the wrong length", f"{size} bytes")
    tcb_info, qe_identity = read_tcb_info(collateral.tcb_info, tee), read_qe_identity(collateral.qe_identity, tee)
    authority, anchor = chains["collateral.pck_crl.chain"]
    crls = {
        "collateral.root_ca_crl": _crl(collateral.root_ca_crl, anchor, "collateral.root_ca_crl"),
        "collateral.pck_crl": _crl(collateral.pck_crl, authority, "collateral.pck_crl"),
    }
    windows = [
        Window(tcb_info.issued, tcb_info.next_update, "collateral.tcb_info", "TCB info"),
        Window(qe_identity.issued, qe_identity.next_update, "collateral.qe_identity", "QE identity"),
    ]
    for check, crl in crls.items():
        windows.append(Window(seconds(crl.last_update_utc), seconds(crl.next_update_utc), check, "revocation list"))
    for check, chain in chains.items():
        windows += certificate_windows(chain, check)
    # Chains go to dcap-qvl as they were read here, so that no reader of PEM can see others; a PCK chain is not among
    # them, as one in the collateral would replace the quote's.
    bundle = dcap_qvl.QuoteCollateralV3(
        to_pem(chains["collateral.pck_crl.chain"]),
        collateral.root_ca_crl,
        collateral.pck_crl,
        to_pem(chains["collateral.tcb_info.chain"]),
        collateral.tcb_info,
        collateral.tcb_info_signature,
        to_pem(chains["collateral.qe_identity.chain"]),
        collateral.qe_identity,
        collateral.qe_identity_signature,
    )
    return Papers(tcb_info, qe_identity, chains, crls, tuple(windows), bundle)


def check_fit(papers: Papers, pck: Pck) -> None:
    """Check that collateral is for the platform that a quote says it is from.

    Raises:
        EvidenceError: ``collateral.tcb_info.fmspc`` or ``.pce_id``, ``collateral.pck_crl.issuer`` or
            ``.chain.signature``.
    """
    for member in ("fmspc", "pce_id"):
        found, rule = getattr(papers.tcb_info, member), getattr(pck, member)
        if found != rule:
            what = "the TCB info is for another kind of platform"
            raise refused(f"collateral.tcb_info.{member}", what, found, rule)
    # dcap-qvl does not look at this chain; it follows the list to the authority in the quote's. So they must agree.
    issuer, anchor = papers.chains["collateral.pck_crl.chain"]
    authority = pck.chain[1]
    if issuer == authority:
        return
    if issuer.subject != authority.subject or issuer.public_key() != authority.public_key():
        raise refused(
            "collateral.pck_crl.issuer",
            "the PCK revocation list is another authority's than the quote's",
            issuer.subject.rfc4514_string(),
            authority.subject.rfc4514_string(),
        )
    if not issued_by(issuer, anchor):
        raise refused(
            "collateral.pck_crl.chain.signature",
            "the issuer of the PCK revocation list is not certified by the root",
            issuer.subject.rfc4514_string(),
        )


def refused(check: str, problem: str, found: str, rule: str | None = None) -> EvidenceError:
    """The error for collateral that proves nothing, or a quote that it does not go with."""
    return EvidenceError(
        check,
        problem,
        found=found,
        rule=rule,
        remedy="fetch the collateral anew, for the platform and the kind of quote at hand, and ask for a new quote",
    )


def _crl(der: bytes, issuer: x509.Certificate, check: str) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        # cryptography reads fields when they are first asked for: ask now, where failure has a name.
        found, begin, end = crl.issuer, crl.last_update_utc, crl.next_update_utc
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        raise refused(f"{check}.format", "the revocation list cannot be read", str(error)[:200]) from error
    if end is None or end <= begin:
        raise refused(f"{check}.format", "the revocation list never expires, or never begins", f"{begin} to {end}")
    if found != issuer.subject:
        raise refused(
            f"{check}.issuer",
            "the revocation list is another authority's",
            found.rfc4514_string(),
            issuer.subject.rfc4514_string(),
        )
    return crl
