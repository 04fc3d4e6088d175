"""Which roots count for quotes of DCAP, and which status the TCB levels give; made to order on the simulated platform.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.root import IntelRoot, SimulatedRoot
from ensconce.appraisal.verdict import SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.collateral import DocumentRecipe, tcb_level
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

NOW = 1_790_000_000
DAY = 86_400

Verify = Callable[..., Verdict]
Refused = Callable[..., str]
Papers = Callable[..., Collateral]
Quoting = Callable[..., bytes]


# The sound case: without it, everything below and in the other files of refusals would show nothing.


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_the_sound_case_is_accepted(
    verify: Verify,
    quote: Quoting,
    collateral: Papers,
    report: Callable[..., SgxReport],
    vendor: SimulatedVendor,
    ca: Any,
) -> None:
    verdict = verify(quote(QuoteRecipe(ca=ca)), collateral(ca=ca))
    assert type(verdict) is SimulatedVerdict
    assert verdict.root == vendor.root_name
    assert verdict.status is TcbStatus.UP_TO_DATE
    assert verdict.advisory_ids == ()
    assert verdict.report == report()
    assert (verdict.fmspc, verdict.pce_id) == (vendor.FMSPC.hex().upper(), vendor.PCE_ID.hex().upper())
    assert verdict.ppid == vendor.machine().ppid.hex()
    assert verdict.valid_until == NOW + 30 * DAY


# Roots.


def test_simulated_evidence_is_nothing_under_intels_root(refused: Refused) -> None:
    assert refused(root=IntelRoot()).endswith(".root")


def test_evidence_of_another_root_of_the_same_name(refused: Refused, stranger: SimulatedVendor) -> None:
    assert refused(root=SimulatedRoot(stranger.root_certificate_der)).endswith(".root")


def test_quote_of_another_vendor_with_our_collateral(
    refused: Refused, report: Callable[..., SgxReport], stranger: SimulatedVendor
) -> None:
    assert refused(make_quote(stranger, report())).endswith(".root")


def test_collateral_of_another_vendor_with_our_quote(refused: Refused, stranger: SimulatedVendor) -> None:
    assert refused(papers=stranger.collateral(NOW)).endswith(".root")


# TCB status: each is data for the policy; Revoked, unknown ones and none at all are refusals.


@pytest.mark.parametrize("status", [status for status in TcbStatus if not status.startswith("TD")])
def test_each_status_is_reported(verify: Verify, collateral: Papers, status: TcbStatus) -> None:
    verdict = verify(papers=collateral(tcb_status=status.value, advisory_ids=["SIMULATED-SA-00002"]))
    assert verdict.status is status
    assert verdict.advisory_ids == ("SIMULATED-SA-00002",)


def test_a_revoked_level_is_refused(refused: Refused, collateral: Papers) -> None:
    assert refused(papers=collateral(tcb_status="Revoked")) == "tcb.revoked"


@pytest.mark.parametrize("status", ["uptodate", "", "Fine", "UpToDate "])
def test_an_unknown_status_is_refused(refused: Refused, collateral: Papers, status: str) -> None:
    assert refused(papers=collateral(tcb_status=status)) == "collateral.tcb_info.levels"


@pytest.mark.parametrize("status", ["TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"])
def test_a_status_of_trust_domains_is_no_better_than_up_to_date_for_sgx(
    verify: Verify, collateral: Papers, status: str
) -> None:
    try:
        verdict = verify(papers=collateral(tcb_status=status))
    except EvidenceError:
        return
    assert verdict.status.value == status


@pytest.fixture(scope="module")
def levels(collateral: Papers) -> Papers:
    """Collateral with TCB levels of one's choice."""
    return lambda *rows: collateral(tcb_info=DocumentRecipe(changes={"tcbLevels": list(rows)}))


def own_level(status: str = "UpToDate", **changes: int) -> dict[str, object]:
    components = list(SimulatedVendor.COMPONENTS)
    for name, value in changes.items():
        if name != "pce_svn":
            components[int(name.removeprefix("c"))] += value
    return tcb_level(components, SimulatedVendor.PCE_SVN + changes.get("pce_svn", 0), status)


@pytest.mark.parametrize("component", [0, 1, 2, 3, 6, 7, 15])
def test_below_the_level_by_one_component(refused: Refused, levels: Papers, component: int) -> None:
    """Components 4 and 5 are at 255 already."""
    assert refused(papers=levels(own_level(**{f"c{component}": 1}))) == "tcb.level"


def test_below_the_level_by_the_pce(refused: Refused, levels: Papers) -> None:
    assert refused(papers=levels(own_level(pce_svn=1))) == "tcb.level"


def test_the_next_level_down_counts_when_the_first_is_out_of_reach(verify: Verify, levels: Papers) -> None:
    verdict = verify(papers=levels(own_level(c0=1), own_level("SWHardeningNeeded", c0=-1)))
    assert verdict.status is TcbStatus.SW_HARDENING_NEEDED


def test_a_revoked_lower_level_counts(refused: Refused, levels: Papers) -> None:
    assert refused(papers=levels(own_level(c0=1), own_level("Revoked", c0=-1))) == "tcb.revoked"


def test_levels_out_of_order_are_refused(refused: Refused, levels: Papers) -> None:
    """The first match decides, so a lower level listed first would hide what the own level says."""
    papers = levels(own_level("UpToDate", c0=-1), own_level("Revoked"))
    assert refused(papers=papers) == "collateral.tcb_info.levels"


def test_no_levels_are_refused(refused: Refused, levels: Papers) -> None:
    assert refused(papers=levels()) == "collateral.tcb_info.levels"


@pytest.mark.parametrize("count", [0, 15, 17])
def test_a_level_with_another_number_of_components(refused: Refused, levels: Papers, count: int) -> None:
    """dcap-qvl once compared as many as there were (GHSA-6q6c-vvf9-fj3w)."""
    row = tcb_level([0] * count, 0, "UpToDate")
    assert refused(papers=levels(row)) == "collateral.tcb_info.levels"


@pytest.mark.parametrize("svn", [-1, 256, "7", 7.0, True, None])
def test_a_component_that_is_no_byte(refused: Refused, levels: Papers, svn: object) -> None:
    row = own_level()
    row["tcb"]["sgxtcbcomponents"][0]["svn"] = svn  # type: ignore[index]
    assert refused(papers=levels(row)).startswith("collateral.tcb_info.")
