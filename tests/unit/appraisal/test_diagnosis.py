from __future__ import annotations

import pytest

from ensconce.appraisal.diagnosis import diagnose


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("Verification failed: Debug mode is enabled", "quote.debug"),
        ("QE report validation failed\n\nCaused by:\n    Debug mode is enabled", "quote.qe_identity"),
        ("ISV enclave report signature is invalid", "quote.signature"),
        ("TCB status is invalid: Revoked", "tcb.revoked"),
        ("No matching TCB level found", "tcb.level"),
        ("QE ISVSVN 1 is below minimum required 7 from QE Identity", "tcb.qe_level"),
        ("TDX module ISVSVN 1 is below minimum required from TDX module TCB levels", "tcb.level"),
        ("SEPT_VE_DISABLE is not enabled", "quote.td_attributes"),
        ("Invalid MR service TD", "quote.service_td"),
        ("Fmspc mismatch", "collateral.tcb_info.fmspc"),
        ("TCBInfo expired", "collateral.tcb_info.expired"),
        ("QE Identity issue date is in the future", "collateral.qe_identity.not_yet_valid"),
        ("Failed to verify certificate chain\n\nCaused by:\n    UnknownIssuer", "chain.verification"),
        ("Failed to verify certificate chain\n\nCaused by:\n    CertExpired { time: 1 }", "chain.expired"),
        ("Failed to parse PCK certificate\n\nCaused by:\n    BadDer", "pck_chain.format"),
        ("Failed to parse TCB Info leaf certificate\n\nCaused by:\n    BadDer", "collateral.tcb_info.chain.format"),
        ("CertRevoked", "chain.revoked"),
        ("CrlExpired { time: 2, next_update: 1 }", "chain.crl_expired"),
        ("InvalidCrlSignatureForPublicKey", "chain.crl"),
        ("something that a later release says", "quote.verification"),
        ("", "quote.verification"),
    ],
)
def test_messages_have_names(text: str, check: str) -> None:
    error = diagnose(text, {}, {})
    assert error.check == check
    assert error.remedy
    assert "\n" not in str(error)


def test_long_messages_are_cut() -> None:
    assert len(str(diagnose("x" * 10_000, {}, {}))) < 500
