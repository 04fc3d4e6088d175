"""Why dcap-qvl said no: its free text, turned into the stable names of checks.

dcap-qvl raises one kind of exception with a sentence in it. The sentences below are those of version 0.7; one that is
not here still refuses the quote, under the name ``quote.verification``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from cryptography import x509

from ensconce.appraisal.chains import common_name, issued_by
from ensconce.errors import EvidenceError

__all__ = ["diagnose"]

_NEW_QUOTE = "ask the enclave for a new quote; if that fails too, its machine or the way to it cannot be trusted"
_NEW_COLLATERAL = "fetch newer collateral, and check this machine's clock"
_OTHER_COLLATERAL = "fetch the collateral anew, for the FMSPC and kind of quote at hand, from a source that you trust"
_UPDATE = "have the operator update the platform's BIOS, microcode and SGX software, and fetch newer collateral"
_WRONG_QE = "the quoting enclave is not the one that its vendor names"

_TEXTS: tuple[tuple[str, str, str, str], ...] = (
    # text in dcap-qvl's message, check, problem, remedy
    # The first that fits counts: what concerns the quoting enclave comes before what may concern either.
    ("QE ISVSVN", "tcb.qe_level", "the quoting enclave is below every TCB level that its vendor lists", _UPDATE),
    ("QE MRSIGNER", "quote.qe_identity", _WRONG_QE, _NEW_QUOTE),
    ("QE ISVPRODID", "quote.qe_identity", _WRONG_QE, _NEW_QUOTE),
    ("QE MISCSELECT", "quote.qe_identity", _WRONG_QE, _NEW_QUOTE),
    ("QE ATTRIBUTES", "quote.qe_identity", _WRONG_QE, _NEW_QUOTE),
    ("QE report validation failed", "quote.qe_identity", _WRONG_QE, _NEW_QUOTE),
    ("Debug mode is enabled", "quote.debug", "the quote is of a debug enclave, whose memory the host can read",
     "sign and start the enclave without debug"),
    ("TCB status is invalid: Revoked", "tcb.revoked", "the platform or its quoting enclave is revoked",
     "use another machine; this one's keys are known to be compromised"),
    ("No matching TCB level", "tcb.level", "the platform is below every TCB level that its vendor lists", _UPDATE),
    ("is below minimum required", "tcb.level", "the platform is below every TCB level that its vendor lists", _UPDATE),
    ("ISV enclave report signature is invalid", "quote.signature",
     "the attestation key did not sign this report", _NEW_QUOTE),
    ("Signature is invalid for qe_report", "quote.qe_report_signature",
     "the PCK key did not sign the quoting enclave's report", _NEW_QUOTE),
    ("QE report hash mismatch", "quote.qe_report_data",
     "the quoting enclave did not vouch for this attestation key", _NEW_QUOTE),
    ("Invalid QE auth data length", "quote.qe_auth_data",
     "the quoting enclave's authentication data is not 32 bytes", _NEW_QUOTE),
    ("Unknown QE vendor ID", "quote.qe_vendor", "the quoting enclave is not Intel's", _NEW_QUOTE),
    ("SEPT_VE_DISABLE", "quote.td_attributes", "the trust domain's attributes are not safe",
     "start the trust domain with SEPT_VE_DISABLE"),
    ("TD attributes", "quote.td_attributes", "the trust domain's attributes are not safe", _NEW_QUOTE),
    ("TD profiling", "quote.td_attributes", "the trust domain's attributes are not safe", _NEW_QUOTE),
    ("TD migration", "quote.td_attributes", "the trust domain's attributes are not safe", _NEW_QUOTE),
    ("SERVTD_EXT", "quote.service_td", "a service TD may change the trust domain", _NEW_QUOTE),
    ("MR service TD", "quote.service_td", "a service TD may change the trust domain",
     "start the trust domain without a service TD"),
    ("TDX module", "quote.tdx_module", "the TDX module is not one that its vendor names", _UPDATE),
    ("Fmspc mismatch", "collateral.tcb_info.fmspc", "the TCB info is for another kind of platform", _OTHER_COLLATERAL),
    ("Signature is invalid for tcb_info", "collateral.tcb_info.signature",
     "the TCB info is not what its signer signed", _OTHER_COLLATERAL),
    ("Signature is invalid for qe_identity", "collateral.qe_identity.signature",
     "the QE identity is not what its signer signed", _OTHER_COLLATERAL),
    ("TCBInfo expired", "collateral.tcb_info.expired", "the TCB info has expired", _NEW_COLLATERAL),
    ("QE Identity expired", "collateral.qe_identity.expired", "the QE identity has expired", _NEW_COLLATERAL),
    ("TCBInfo issue date", "collateral.tcb_info.not_yet_valid", "the TCB info is from the future", _NEW_COLLATERAL),
    ("QE Identity issue date", "collateral.qe_identity.not_yet_valid", "the QE identity is from the future",
     _NEW_COLLATERAL),
    ("Failed to decode TcbInfo", "collateral.tcb_info.format", "the TCB info cannot be read", _OTHER_COLLATERAL),
    ("Failed to decode QeIdentity", "collateral.qe_identity.format", "the QE identity cannot be read",
     _OTHER_COLLATERAL),
    ("Failed to parse PCK certificate", "pck_chain.format", "the PCK certificate cannot be read", _NEW_QUOTE),
    ("Failed to extract PCK certificates", "pck_chain.format", "the PCK certificate chain cannot be read", _NEW_QUOTE),
    ("Failed to parse TCB Info leaf", "collateral.tcb_info.chain.format",
     "the certificate of its signer cannot be read", _OTHER_COLLATERAL),
    ("Failed to parse QE Identity leaf", "collateral.qe_identity.chain.format",
     "the certificate of its signer cannot be read", _OTHER_COLLATERAL),
    ("CertRevoked", "chain.revoked", "a certificate is revoked", "use another machine, or fetch newer collateral"),
    ("CrlExpired", "chain.crl_expired", "a revocation list has expired", _NEW_COLLATERAL),
    ("CertExpired", "chain.expired", "a certificate has expired", _NEW_COLLATERAL),
    ("CertNotValidYet", "chain.not_yet_valid", "a certificate is from the future", _NEW_COLLATERAL),
    ("CRL", "chain.crl", "a revocation list cannot be used", _OTHER_COLLATERAL),
    ("certificate chain", "chain.verification", "a certificate chain does not lead to the root", _OTHER_COLLATERAL),
)  # fmt: skip


def diagnose(
    text: str, chains: Mapping[str, tuple[x509.Certificate, ...]], crls: Mapping[str, x509.CertificateRevocationList]
) -> EvidenceError:
    """The error to raise for a message of dcap-qvl.

    Args:
        text: the message.
        chains: by the name of the check, the certificate chains involved, leaf first, the root last.
        crls: by the name of the check, the revocation lists involved.
    """
    text = " ".join(text.removeprefix("Verification failed: ").split())
    row = next((row for row in _TEXTS if row[0].casefold() in text.casefold()), None)
    if row is None:
        return EvidenceError(
            "quote.verification",
            "the quote did not verify",
            found=text[:200],
            remedy="ask the enclave for a new quote and fetch newer collateral",
        )
    _, check, problem, remedy = row
    # dcap-qvl does not say which of the chains it could not follow: find the link.
    try:
        broken = _broken_link(chains, crls) if check.startswith("chain.") else None
    except Exception:  # an entry that cryptography cannot read; the message of dcap-qvl says enough
        broken = None
    return broken or EvidenceError(check, problem, found=text[:200], remedy=remedy)


def _broken_link(
    chains: Mapping[str, tuple[x509.Certificate, ...]], crls: Mapping[str, x509.CertificateRevocationList]
) -> EvidenceError | None:
    for check, chain in chains.items():
        for certificate, issuer in itertools.pairwise((*chain, chain[-1])):
            if not issued_by(certificate, issuer):
                return EvidenceError(
                    f"{check}.signature",
                    "a certificate is not signed by the issuer that it names",
                    found=f"{common_name(certificate)}, serial number {certificate.serial_number:x}",
                    rule=f"signed by {common_name(issuer)}",
                    remedy=_OTHER_COLLATERAL if check.startswith("collateral.") else _NEW_QUOTE,
                )
    issuers = {certificate.subject: certificate for chain in chains.values() for certificate in chain[1:]}
    for check, crl in crls.items():
        issuer_of_crl = issuers.get(crl.issuer)
        if issuer_of_crl is None or not _crl_signed_by(crl, issuer_of_crl):
            return EvidenceError(
                f"{check}.signature",
                "the revocation list is not signed by the issuer that it names",
                found=crl.issuer.rfc4514_string()[:200],
                remedy=_OTHER_COLLATERAL,
            )
    for check, chain in chains.items():
        for certificate in chain:
            for crl in crls.values():
                if crl.issuer == certificate.issuer and crl.get_revoked_certificate_by_serial_number(
                    certificate.serial_number
                ):
                    return EvidenceError(
                        f"{check}.revoked",
                        "a certificate is revoked",
                        found=f"{common_name(certificate)}, serial number {certificate.serial_number:x}",
                        remedy="use another machine; the issuer no longer vouches for this key"
                        if check == "pck_chain"
                        else _OTHER_COLLATERAL,
                    )
    return None


def _crl_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # other key types raise
    except (ValueError, TypeError):
        return False
