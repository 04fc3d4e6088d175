"""What verifying a quote compared, in words: told to :mod:`ensconce.trail` after it has held, and only if recorded."""

from __future__ import annotations

from ensconce.appraisal.chains import common_name
from ensconce.appraisal.papers import Papers
from ensconce.appraisal.pck import Pck
from ensconce.appraisal.verdict import Verdict
from ensconce.evidence.quote import Quote
from ensconce.times import utc_text
from ensconce.trail import held

__all__ = ["show_fit", "show_signatures", "show_tcb"]


def show_fit(papers: Papers, pck: Pck, at: int) -> None:
    """After the documents were found to be for this platform, and in date."""
    found, rule = (f"FMSPC {each.fmspc}, PCEID {each.pce_id}" for each in (papers.tcb_info, pck))
    held("collateral.tcb_info.fmspc", "platform that the TCB info is for", found=found, rule=f"the quote's: {rule}")
    found, rule = (common_name(each) for each in (papers.chains["collateral.pck_crl.chain"][0], pck.chain[1]))
    held("collateral.pck_crl.issuer", "authority of the PCK revocation list", found=found, rule=f"the quote's: {rule}")
    seen = set()
    for window in papers.windows + pck.windows:
        begin, end, check, what = window
        shared = (begin, end, what) if what.startswith("certificate") else window
        if shared in seen:  # the root is in every chain
            continue
        seen.add(shared)
        whose = {"collateral.root_ca_crl": " of the root", "collateral.pck_crl": " of the PCK authority"}.get(check, "")
        dates = f"{utc_text(begin)} to {utc_text(end)}"
        held(f"{check}.expired", f"{what}{whose}", found=dates, rule=f"valid at {utc_text(at)}", end=end)


def show_signatures(quote: Quote, pck: Pck, papers: Papers) -> None:
    """After dcap-qvl has verified every signature, the revocation lists and the quoting enclave."""
    enclave = quote.qe_report
    found, rule = f"attestation key {quote.attestation_key.hex()}", "it signed the report (ECDSA, P-256)"
    held("quote.signature", "signature of the report", found=found, rule=rule)
    rule = "SHA-256 of that key and of the quoting enclave's own data"
    held("quote.qe_report_data", "key that the quoting enclave vouches for", found=enclave.report_data.hex(), rule=rule)
    found = f"PCK certificate, serial number {pck.chain[0].serial_number:x}"
    rule = "its key signed the quoting enclave's report"
    held("quote.qe_report_signature", "signature of the quoting enclave's report", found=found, rule=rule)
    found = f"MRSIGNER {enclave.mr_signer.hex()}, product {enclave.isv_prod_id}, security version {enclave.isv_svn}"
    rule = f"the vendor's QE identity, evaluation number {papers.qe_identity.evaluation_number}"
    held("quote.qe_identity", "quoting enclave", found=found, rule=rule)
    for what, label in (("tcb_info", "TCB info"), ("qe_identity", "QE identity")):
        check = f"collateral.{what}.signature"
        found = common_name(papers.chains[f"collateral.{what}.chain"][0])
        held(check, f"signature of the {label}", found=found, rule="its key signed it, and it leads to the root")
    for check, crl in papers.crls.items():
        found = f"{crl.issuer.rfc4514_string()}: {len(crl)} certificates revoked"
        rule = "its key signed the list, and no certificate in use is in it"
        held(f"{check}.signature", "revocation list", found=found, rule=rule)


def show_tcb(verdict: Verdict) -> None:
    """After the platform's level was found."""
    rule = "a status that the vendor defines, and not Revoked; whether it suffices is for the policy"
    held("tcb.status", "TCB status", found=verdict.status, rule=rule)
    found = f"{utc_text(verdict.tcb_date)}, evaluation number {verdict.tcb_evaluation_data_number}"
    held("tcb.level", "TCB level that the platform reaches", found=found, rule="one that the TCB info lists")
