"""Quote verification: dcap-qvl's cryptography inside a layer that is as strict as Intel's own library.

dcap-qvl checks every signature, revocation and TCB level, but accepts more shapes than DCAP has: any certificate under
the root may sign TCB info there, a platform's own PCK key among them. What is checked here and not there is listed in
docs/decisions/0005-quote-verification.md. The invariant is not that any changed byte is refused (PEM has bytes that
mean nothing), but that no changed byte changes what the verdict says.
"""

from __future__ import annotations

import json
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]  # it has stubs, but no py.typed

from ensconce.appraisal.chains import check_root
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.diagnosis import diagnose
from ensconce.appraisal.papers import Papers, check_fit, read_papers, refused
from ensconce.appraisal.pck import Pck, read_pck
from ensconce.appraisal.root import IntelRoot, TrustRoot
from ensconce.appraisal.shown import show_fit, show_signatures, show_tcb
from ensconce.appraisal.tcb import converged
from ensconce.appraisal.validity import check_windows
from ensconce.appraisal.verdict import _MINT, GenuineVerdict, SimulatedVerdict, Verdict
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, Quote, parse_quote
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.trail import held, recording, step

__all__ = ["verify_quote"]

_MAX_TIME = 253402300799  # the last second of the year 9999


def verify_quote(quote: bytes, collateral: Collateral, *, at: int, root: TrustRoot) -> Verdict:
    """Verify a quote: is it genuine, and how up to date is its platform?

    The TCB status is part of the verdict, not a reason to refuse, Revoked excepted. Debug enclaves are refused.

    Args:
        quote: the quote and nothing else.
        collateral: for the quote's kind of platform and PCK authority.
        at: for which time to verify, seconds since 1970.
        root: whom to trust.

    Returns:
        A :class:`GenuineVerdict` under Intel's root, a :class:`SimulatedVerdict` under any other.

    Raises:
        EvidenceError: the quote is not genuine, or the collateral is not; the names of the checks are in
            docs/reference/quote.md.
        InputError: ``at`` is not a time.
    """
    if not 0 <= at <= _MAX_TIME:
        raise InputError(
            "time", "this is no time to verify for", found=str(at), rule=f"0 to {_MAX_TIME}, seconds since 1970"
        )
    with step("root"):
        parsed = parse_quote(quote)
        _check_kind(parsed)
        pck = read_pck(parsed)
        check_root(pck.chain, root.fingerprint, "pck_chain")
        held("pck_chain.root", f"root certificate, {root.name}", found=root.fingerprint, rule=root.fingerprint)
    with step("documents"):
        papers = read_papers(collateral, parsed.tee, root.fingerprint)
        check_fit(papers, pck)
        valid_until = check_windows(papers.windows + pck.windows, at)
        if recording():
            show_fit(papers, pck, at)
    with step("quote"):
        claims = _verify(bytes(quote), pck, papers, at, root)
        if recording():
            show_signatures(parsed, pck, papers)
    with step("tcb"):
        verdict = _verdict(parsed, pck, papers, claims, root=root, at=at, valid_until=valid_until)
        if recording():
            show_tcb(verdict)
    return verdict


def _check_kind(quote: Quote) -> None:
    versions = (3,) if quote.tee == "sgx" else (4, 5)
    if quote.header.version not in versions:
        raise EvidenceError(
            "quote.version",
            f"a quote of this version for {quote.tee.upper()} cannot be verified",
            found=str(quote.header.version),
            rule=" or ".join(map(str, versions)),
            remedy="let the quoting library make quotes of that version",
        )
    if quote.header.qe_vendor_id != INTEL_QE_VENDOR_ID:
        raise EvidenceError(
            "quote.qe_vendor",
            "the quoting enclave is not Intel's",
            found=quote.header.qe_vendor_id.hex(),
            rule=INTEL_QE_VENDOR_ID.hex(),
            remedy="use Intel's quoting enclave",
        )
    if isinstance(quote.body, TdReport) and any(quote.body.seam_attributes):
        # dcap-qvl takes what TCB info says, Intel's library zero and nothing else: no attribute is defined.
        raise EvidenceError(
            "quote.tdx_module",
            "the TDX module has attributes that nobody knows",
            found=quote.body.seam_attributes.hex(),
            rule="SEAMATTRIBUTES is zero",
            remedy="have the operator load a production TDX module of Intel's",
        )


def _verify(quote: bytes, pck: Pck, papers: Papers, at: int, root: TrustRoot) -> dict[str, Any]:
    """All the cryptography, by dcap-qvl; its claims."""
    # The PCK chain is the quote's own, which is strict PEM, or read_pck had refused it.
    root_der = None if isinstance(root, IntelRoot) else root.certificate_der
    try:
        policy = dcap_qvl.QuotePolicy.claims_only(at)
        claims = dcap_qvl.QuoteVerifier(root_der).verify_with_policy(quote, papers.bundle, at, policy)
        value: dict[str, Any] = json.loads(claims.to_json())
        return value
    except ValueError as error:
        text = str(error)
    try:
        # The older entry point says more about the cause; it decides nothing here.
        if root_der is None:
            dcap_qvl.verify(quote, papers.bundle, at)
        else:
            dcap_qvl.verify_with_root_ca(quote, papers.bundle, root_der, at)
    except ValueError as error:
        text = str(error)
    raise diagnose(text, {"pck_chain": pck.chain, **papers.chains}, papers.crls)


def _verdict(
    quote: Quote, pck: Pck, papers: Papers, claims: dict[str, Any], *, root: TrustRoot, at: int, valid_until: int
) -> Verdict:
    platform = claims["platform"]["pck"]
    fmspc, pce_id = bytes(platform["fmspc"]).hex().upper(), bytes(platform["pce_id"]).hex().upper()
    if (fmspc, pce_id) != (pck.fmspc, pck.pce_id) or not _same_report(quote, claims["report"]):
        # Two readers of the same bytes disagree: whoever made them meant it.
        raise refused("quote.verification", "what was verified is not what was read", "two readings of one quote")
    status, advisory_ids = converged(claims)
    kind = GenuineVerdict if isinstance(root, IntelRoot) else SimulatedVerdict
    return kind(
        mint=_MINT,
        tee=quote.tee,
        root=root.name,
        status=status,
        advisory_ids=advisory_ids,
        report=quote.body,
        fmspc=fmspc,
        pce_id=pce_id,
        ppid=bytes(platform["ppid"]).hex(),
        tcb_date=int(claims["platform"]["tcb_date_tag"]),
        tcb_evaluation_data_number=papers.tcb_info.evaluation_number,
        qe_evaluation_data_number=papers.qe_identity.evaluation_number,
        valid_until=min(valid_until, int(claims["earliest_expiration_date"])),
        at=at,
    )


def _same_report(quote: Quote, claimed: dict[str, Any]) -> bool:
    """Whether dcap-qvl's reading of the report has the values of ours."""
    (report,) = claimed.values()
    while "base" in report:
        report = report["base"]
    body = quote.body
    if isinstance(body, SgxReport):
        return bool(
            (report["isv_prod_id"], report["isv_svn"], report["misc_select"])
            == (body.isv_prod_id, body.isv_svn, body.misc_select)
            and report["attributes"] == body.attributes.to_bytes().hex()
            and all(report[name] == getattr(body, name).hex() for name in ("mr_enclave", "mr_signer", "report_data"))
        )
    return bool(
        all(report[name] == getattr(body, name).hex() for name in ("mr_td", "td_attributes", "report_data"))
        and all(report[f"rt_mr{n}"] == getattr(body, f"rtmr{n}").hex() for n in range(4))
    )
