"""What verification says of sound quotes; how it refuses is in test_negatives_*.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.papers import read_papers
from ensconce.appraisal.root import SimulatedRoot
from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.collateral import CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import CA, SimulatedVendor

NOW = 1_790_000_000
DAY = 86_400


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_a_sound_quote_says_who_it_is(world: Any, ca: CA) -> None:
    vendor, body = world.vendor, world.report(report_data=b"\x44" * 64)
    verdict = world.verify(world.quote(body, ca=ca), world.papers(ca=ca))
    assert type(verdict) is SimulatedVerdict
    assert not isinstance(verdict, GenuineVerdict)
    assert verdict.report == body
    assert (verdict.tee, verdict.root) == ("tdx" if world.tdx else "sgx", vendor.root_name)
    assert (verdict.status, verdict.advisory_ids) == (TcbStatus.UP_TO_DATE, ())
    assert (verdict.fmspc, verdict.pce_id, verdict.at) == (vendor.FMSPC.hex().upper(), "0000", NOW)
    assert verdict.ppid == vendor.machine().ppid.hex()
    assert verdict.valid_until == NOW + 30 * DAY


@pytest.mark.parametrize("status", [status for status in TcbStatus if not status.startswith("TD")])
def test_each_status_is_data(world: Any, status: TcbStatus) -> None:
    verdict = world.verify(papers=world.papers(tcb_status=status.value, advisory_ids=["SIMULATED-SA-00009"]))
    assert verdict.status is status
    assert verdict.advisory_ids == ("SIMULATED-SA-00009",)


def test_the_next_level_down_counts_when_the_first_is_out_of_reach(world: Any) -> None:
    verdict = world.verify(papers=world.levels(world.level(c0=1), world.level("SWHardeningNeeded", c0=-1)))
    assert verdict.status is TcbStatus.SW_HARDENING_NEEDED


def test_the_level_is_the_pck_certificates_not_the_reports(world: Any) -> None:
    """The report's CPUSVN is what the machine says of itself; the certificate is what the vendor says."""
    components = (6, *world.vendor.COMPONENTS[1:])
    older = replace(world.vendor.machine(), components=components, cpu_svn=bytes(components), pce_svn=12)
    verdict = world.verify(world.with_pck(older))
    assert verdict.status is TcbStatus.OUT_OF_DATE
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


def test_an_enclave_without_init_is_the_policys_business(worlds: dict[str, Any]) -> None:
    world = worlds["SGX v3"]
    body = replace(world.report(), attributes=Attributes(Attributes.MODE64BIT | Attributes.PROVISION_KEY, 3))
    assert world.verify(world.quote(body)).report == body


def test_unknown_members_of_signed_documents_are_tolerated(world: Any) -> None:
    news = DocumentRecipe(changes={"tcbNovelty": {"a": [1]}})
    assert world.verify(papers=world.papers(tcb_info=news, qe_identity=news)).status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize("text", ['{"id":"SGX","id":"SGX"}', "NaN", '{"id":"\ud800"}', "\0", "1e999"])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_texts_that_are_no_documents(worlds: dict[str, Any], document: str, text: str) -> None:
    world = worlds["SGX v3"]
    with pytest.raises(EvidenceError) as caught:
        world.verify(papers=replace(world.sound_papers, **{document: text}))
    assert caught.value.check == f"collateral.{document}.format"


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_the_first_and_the_last_second(world: Any, part: str) -> None:
    kind: Any = CrlRecipe if part.endswith("crl") else DocumentRecipe
    assert world.verify(papers=world.papers(**{part: kind(issued=0, next_update=1)})).valid_until == NOW + 1


@pytest.mark.parametrize("at", [NOW - 2 * 365 * DAY, NOW + 40 * 365 * DAY])
def test_everything_out_of_its_time(world: Any, at: int) -> None:
    with pytest.raises(EvidenceError) as caught:
        world.verify(at=at)
    assert caught.value.check.rpartition(".")[2] in ("expired", "not_yet_valid")


@pytest.mark.parametrize("at", [-1, 2**63, 253402300800])
def test_a_time_that_is_none(world: Any, at: int) -> None:
    with pytest.raises(InputError):
        world.verify(at=at)


# Collateral is read once for the quotes that it serves: what was found must be found for nothing else.


def test_what_is_kept_of_collateral_is_for_that_time_root_and_kind_alone(world: Any) -> None:
    assert world.verify().status is TcbStatus.UP_TO_DATE
    later = world.sound_papers, NOW + 30 * DAY
    for papers, at, root, expected in (
        (*later, world.vendor.root_certificate_der, "collateral.tcb_info.expired"),
        (world.sound_papers, NOW, world.stranger.root_certificate_der, "pck_chain.root"),
    ):
        with pytest.raises(EvidenceError) as caught:
            verify_quote(world.sound, papers, at=at, root=SimulatedRoot(root))
        assert caught.value.check == expected
    fingerprint = SimulatedRoot(world.stranger.root_certificate_der).fingerprint
    with pytest.raises(EvidenceError) as caught:
        read_papers(world.sound_papers, "tdx" if world.tdx else "sgx", fingerprint)
    assert caught.value.check == "collateral.tcb_info.chain.root"
    with pytest.raises(EvidenceError) as caught:
        read_papers(world.sound_papers, "sgx" if world.tdx else "tdx", world.vendor.root_name.partition(":")[2])
    assert caught.value.check == "collateral.tcb_info.id"


def test_as_many_collaterals_are_kept_as_are_of_use(world: Any) -> None:
    for status in TcbStatus:
        for document in ("tcb_status", "qe_status"):
            try:
                world.verify(papers=world.papers(**{document: status.value}))
            except EvidenceError:
                continue
    assert read_papers.cache_info().currsize <= 8


def test_the_report_is_the_enclaves(vendor: SimulatedVendor, root: SimulatedRoot, quote: Callable[..., bytes]) -> None:
    verdict = verify_quote(quote(mr_enclave=b"\x33" * 32, isv_svn=9), vendor.collateral(NOW), at=NOW, root=root)
    assert isinstance(verdict.report, SgxReport)
    assert (verdict.report.mr_enclave, verdict.report.isv_svn) == (b"\x33" * 32, 9)
