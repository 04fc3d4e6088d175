"""Simulated quotes and collateral before Intel's own verification library, with the simulated root passed in.

The library is Intel's SGX Quote Verification Library of 2022/23, from the package ``sgx-dcap-quote-verify-python``.
That it accepts what the simulated platform makes shows that the formats are the real ones. What it refuses is in
tests/interop/quotes.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import SimulatedRoot
from ensconce.errors import EvidenceError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.certificates import Party
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import CA, SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, QuotingEnclave, make_quote

intel = pytest.importorskip(
    "sgx_dcap_quote_verify", reason="Intel's library is not installed: pip install sgx-dcap-quote-verify-python==0.0.3"
)

NOW = 1_790_000_000
DAY = 86_400
VENDOR = SimulatedVendor(b"the seed of the interop tests...", NOW - 400 * DAY)
OTHER = SimulatedVendor(b"a vendor that nobody trusts here", NOW - 400 * DAY)


@pytest.fixture
def report(sound_report: Callable[..., SgxReport]) -> SgxReport:
    return sound_report(VENDOR)


def intels_verdict(
    quote: bytes, papers: Collateral, *, ca: CA = "platform", pck: Party | None = None, root: Party | None = None
) -> Any:
    return intel.verify(
        trusted_root_ca_certificate=(root or VENDOR.root).pem,
        pck_certificate=(pck or VENDOR.pck(ca)).pem,
        pck_signing_chain=VENDOR.pck_ca(ca).pem + VENDOR.root.pem,
        root_ca_crl=papers.root_ca_crl.hex(),
        intermediate_ca_crl=papers.pck_crl.hex(),
        tcb_info=f'{{"tcbInfo":{papers.tcb_info},"signature":"{papers.tcb_info_signature.hex()}"}}',
        tcb_signing_chain=papers.tcb_info_issuer_chain,
        quote=quote,
        qe_identity=f'{{"enclaveIdentity":{papers.qe_identity},"signature":"{papers.qe_identity_signature.hex()}"}}',
        # The library takes a datetime without a zone for UTC.
        expiration_date=datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None),
    )


def names(verdict: Any) -> list[str]:
    statuses = (
        verdict.pck_certificate_status,
        verdict.tcb_info_status,
        verdict.qe_identity_status,
        verdict.quote_status,
    )
    return [status.name.removeprefix("STATUS_") for status in statuses if status.name != "STATUS_OK"]


def our_status(quote: bytes, papers: Collateral) -> str | None:
    """The TCB status that we find; None when we refuse."""
    try:
        return verify_quote(quote, papers, at=NOW, root=SimulatedRoot(VENDOR.root_certificate_der)).status.value
    except EvidenceError:
        return None


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_a_sound_quote_is_sound_for_intel(report: SgxReport, ca: CA) -> None:
    quote = make_quote(VENDOR, report, QuoteRecipe(ca=ca))
    verdict = intels_verdict(quote, VENDOR.collateral(NOW, CollateralRecipe(ca=ca)), ca=ca)
    assert verdict.ok
    assert names(verdict) == []
    assert verdict.enclave_report.mr_enclave == report.mr_enclave
    assert verdict.enclave_report.report_data == report.report_data
    assert verdict.enclave_report.isv_prod_id.value == report.isv_prod_id


@pytest.mark.parametrize(
    ("status", "intels"),
    [
        ("UpToDate", None),
        ("SWHardeningNeeded", "TCB_SW_HARDENING_NEEDED"),
        ("ConfigurationNeeded", "TCB_CONFIGURATION_NEEDED"),
        ("ConfigurationAndSWHardeningNeeded", "TCB_CONFIGURATION_AND_SW_HARDENING_NEEDED"),
        ("OutOfDate", "TCB_OUT_OF_DATE"),
        ("OutOfDateConfigurationNeeded", "TCB_OUT_OF_DATE_CONFIGURATION_NEEDED"),
        ("Revoked", "TCB_REVOKED"),
    ],
)
def test_every_status_is_the_same_for_intel(report: SgxReport, status: str, intels: str | None) -> None:
    quote = make_quote(VENDOR, report)
    papers = VENDOR.collateral(NOW, CollateralRecipe(tcb_status=status, advisory_ids=["SIMULATED-SA-00002"]))
    assert names(intels_verdict(quote, papers)) == ([intels] if intels else [])
    assert our_status(quote, papers) == (None if status == "Revoked" else status)


def test_what_intel_calls_out_of_date_so_do_we(report: SgxReport) -> None:
    outdated = QuoteRecipe(quoting_enclave=QuotingEnclave(isv_svn=7))
    quote, papers = make_quote(VENDOR, report, outdated), VENDOR.collateral(NOW)
    assert names(intels_verdict(quote, papers))
    assert our_status(quote, papers) == "OutOfDate"


def test_another_root_is_refused_by_intel_too(report: SgxReport) -> None:
    assert not intels_verdict(make_quote(VENDOR, report), VENDOR.collateral(NOW), root=OTHER.root).ok
    assert not intels_verdict(make_quote(OTHER, report), VENDOR.collateral(NOW)).ok


@pytest.mark.parametrize("at", [0, 48, 431, 436, 500, 564, 948, 1020])
def test_changed_bytes_are_refused_by_intel_too(report: SgxReport, at: int) -> None:
    quote = bytearray(make_quote(VENDOR, report))
    quote[at] ^= 1
    papers = VENDOR.collateral(NOW)
    assert not intels_verdict(bytes(quote), papers).ok
    assert our_status(bytes(quote), papers) is None
