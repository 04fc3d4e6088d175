"""Quote verification: dcap-qvl's cryptography inside a layer that is as strict as Intel's own library.

dcap-qvl checks every signature, revocation and TCB level, but accepts more shapes than DCAP has: any certificate under
the root may sign TCB info there, a platform's own PCK key among them. What is checked here and not there is listed in
docs/decisions/0005-quote-verification.md. The invariant is not that any changed byte is refused (PEM has bytes that
mean nothing), but that no changed byte changes what the verdict says.
"""

from __future__ import annotations

import datetime
import json
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
    common_name,
    issued_by,
    to_pem,
)
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.diagnosis import diagnose
from ensconce.appraisal.documents import Document, TcbInfo, read_qe_identity, read_tcb_info
from ensconce.appraisal.pck import Pck, read_pck
from ensconce.appraisal.root import IntelRoot, TrustRoot
from ensconce.appraisal.verdict import _MINT, GenuineVerdict, SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, Quote, parse_quote
from ensconce.evidence.report import SgxReport

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
    parsed = parse_quote(quote)
    _check_kind(parsed)
    pck = read_pck(parsed)
    papers = _read_papers(parsed, pck, collateral, root)
    valid_until = _check_windows(papers, at)
    claims = _verify(bytes(quote), collateral, papers, at, root)
    return _verdict(parsed, pck, papers, claims, root=root, at=at, valid_until=valid_until)


@dataclass(frozen=True, slots=True)
class _Papers:
    """Everything around the quote, read and found to fit together; keys name checks."""

    tcb_info: TcbInfo
    qe_identity: Document
    chains: dict[str, tuple[x509.Certificate, ...]]
    crls: dict[str, x509.CertificateRevocationList]


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


def _read_papers(quote: Quote, pck: Pck, collateral: Collateral, root: TrustRoot) -> _Papers:
    check_root(pck.chain, root.fingerprint, "pck_chain")
    chains = {"pck_chain": pck.chain}
    for name, pem, shape in (
        ("tcb_info", collateral.tcb_info_issuer_chain, SIGNER_CHAIN),
        ("qe_identity", collateral.qe_identity_issuer_chain, SIGNER_CHAIN),
        ("pck_crl", collateral.pck_crl_issuer_chain, CRL_CHAIN),
    ):
        check = f"collateral.{name}.chain"
        chains[check] = certificates_in(pem.encode(errors="replace"), f"{check}.format")
        check_shape(chains[check], shape, check)
        check_root(chains[check], root.fingerprint, check)
    for name in ("tcb_info", "qe_identity"):
        size = len(getattr(collateral, f"{name}_signature"))
        if size != 64:
            raise _refused(f"collateral.{name}.signature", "the signature has the wrong length", f"{size} bytes")

    tcb_info = read_tcb_info(collateral.tcb_info, quote.tee)
    if (tcb_info.fmspc, tcb_info.pce_id) != (pck.fmspc, pck.pce_id):
        member = "fmspc" if tcb_info.fmspc != pck.fmspc else "pce_id"
        raise _refused(
            f"collateral.tcb_info.{member}",
            "the TCB info is for another kind of platform",
            getattr(tcb_info, member),
            getattr(pck, member),
        )
    crls = {
        "collateral.root_ca_crl": _crl(collateral.root_ca_crl, pck.chain[-1], "collateral.root_ca_crl"),
        "collateral.pck_crl": _crl(collateral.pck_crl, pck.chain[1], "collateral.pck_crl"),
    }
    _check_crl_issuer(chains["collateral.pck_crl.chain"], pck)
    return _Papers(tcb_info, read_qe_identity(collateral.qe_identity, quote.tee), chains, crls)


def _check_crl_issuer(chain: tuple[x509.Certificate, ...], pck: Pck) -> None:
    # dcap-qvl does not look at this chain; it follows the list to the authority in the quote's. So they must agree.
    issuer, authority = chain[0], pck.chain[1]
    if issuer.subject != authority.subject or issuer.public_key() != authority.public_key():
        raise _refused(
            "collateral.pck_crl.issuer",
            "the PCK revocation list is another authority's than the quote's",
            issuer.subject.rfc4514_string(),
            authority.subject.rfc4514_string(),
        )
    if issuer != authority and not issued_by(issuer, chain[1]):
        raise _refused(
            "collateral.pck_crl.chain.signature",
            "the issuer of the PCK revocation list is not certified by the root",
            issuer.subject.rfc4514_string(),
        )


def _crl(der: bytes, issuer: x509.Certificate, check: str) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        # cryptography reads fields when they are first asked for: ask now, where failure has a name.
        found, begin, end = crl.issuer, crl.last_update_utc, crl.next_update_utc
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        raise _refused(f"{check}.format", "the revocation list cannot be read", str(error)[:200]) from error
    if end is None or end <= begin:
        raise _refused(f"{check}.format", "the revocation list never expires, or never begins", f"{begin} to {end}")
    if found != issuer.subject:
        raise _refused(
            f"{check}.issuer",
            "the revocation list is another authority's",
            found.rfc4514_string(),
            issuer.subject.rfc4514_string(),
        )
    return crl


def _check_windows(papers: _Papers, at: int) -> int:
    """Check that everything is valid at that time; the earliest end of all those times.

    All windows are half open: what ends at second n is no longer good in that second.
    """
    windows = [
        ("collateral.tcb_info", "TCB info", papers.tcb_info.issued, papers.tcb_info.next_update),
        ("collateral.qe_identity", "QE identity", papers.qe_identity.issued, papers.qe_identity.next_update),
    ]
    windows += [
        (check, "revocation list", _seconds(crl.last_update_utc), _seconds(crl.next_update_utc))
        for check, crl in papers.crls.items()
    ]
    for check, chain in papers.chains.items():
        for certificate in chain:
            begin, end = _seconds(certificate.not_valid_before_utc), _seconds(certificate.not_valid_after_utc)
            windows.append((check, f"certificate {common_name(certificate)!r}", begin, end))
    for check, what, begin, end in windows:
        if at < begin:
            raise EvidenceError(
                f"{check}.not_yet_valid",
                f"the {what} is from the future",
                found=f"valid from {begin}",
                rule=f"valid at {at}",
                remedy="check this machine's clock, or the time that was given",
            )
        if at >= end:
            raise EvidenceError(
                f"{check}.expired",
                f"the {what} has expired",
                found=f"valid until {end}",
                rule=f"valid at {at}",
                remedy="fetch newer collateral; if that is as old, check this machine's clock and the PCCS",
            )
    return min(end for *_, end in windows)


def _verify(quote: bytes, collateral: Collateral, papers: _Papers, at: int, root: TrustRoot) -> dict[str, Any]:
    """All the cryptography, by dcap-qvl; its claims."""
    # Chains go in as they were read here, so that no reader of PEM can see others; the PCK chain is not among them, as
    # one in the collateral would replace the quote's. The quote's own is strict PEM, or read_pck had refused it.
    bundle = dcap_qvl.QuoteCollateralV3(
        to_pem(papers.chains["collateral.pck_crl.chain"]),
        collateral.root_ca_crl,
        collateral.pck_crl,
        to_pem(papers.chains["collateral.tcb_info.chain"]),
        collateral.tcb_info,
        collateral.tcb_info_signature,
        to_pem(papers.chains["collateral.qe_identity.chain"]),
        collateral.qe_identity,
        collateral.qe_identity_signature,
    )
    root_der = None if isinstance(root, IntelRoot) else root.certificate_der
    try:
        policy = dcap_qvl.QuotePolicy.claims_only(at)
        claims = dcap_qvl.QuoteVerifier(root_der).verify_with_policy(quote, bundle, at, policy)
        value: dict[str, Any] = json.loads(claims.to_json())
        return value
    except ValueError as error:
        text = str(error)
    try:
        # The older entry point says more about the cause; it decides nothing here.
        if root_der is None:
            dcap_qvl.verify(quote, bundle, at)
        else:
            dcap_qvl.verify_with_root_ca(quote, bundle, root_der, at)
    except ValueError as error:
        text = str(error)
    raise diagnose(text, papers.chains, papers.crls)


def _verdict(
    quote: Quote, pck: Pck, papers: _Papers, claims: dict[str, Any], *, root: TrustRoot, at: int, valid_until: int
) -> Verdict:
    platform = claims["platform"]["pck"]
    fmspc, pce_id = bytes(platform["fmspc"]).hex().upper(), bytes(platform["pce_id"]).hex().upper()
    if (fmspc, pce_id) != (pck.fmspc, pck.pce_id) or not _same_report(quote, claims["report"]):
        # Two readers of the same bytes disagree: whoever made them meant it.
        raise _refused("quote.verification", "what was verified is not what was read", "two readings of one quote")
    try:
        status = TcbStatus(claims["tcb"]["status"])
    except ValueError:
        raise _refused("tcb.status", "the TCB status cannot stand", str(claims["tcb"]["status"])[:100]) from None
    kind = GenuineVerdict if isinstance(root, IntelRoot) else SimulatedVerdict
    return kind(
        mint=_MINT,
        tee=quote.tee,
        root=root.name,
        status=status,
        advisory_ids=tuple(map(str, claims["tcb"]["advisory_ids"])),
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


def _seconds(when: datetime.datetime | None) -> int:
    assert when is not None  # _crl has seen to it
    return int(when.timestamp())


def _refused(check: str, problem: str, found: str, rule: str | None = None) -> EvidenceError:
    return EvidenceError(
        check,
        problem,
        found=found,
        rule=rule,
        remedy="fetch the collateral anew, for the platform and the kind of quote at hand, and ask for a new quote",
    )
