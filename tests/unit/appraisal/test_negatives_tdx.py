"""What only trust domains have: attributes, a TDX module, and a TCB that changes while they run.

Rules beside Intel's (TDX DCAP quote verification, TCB info version 3): the newest Intel library accepts a signer or
an attribute of the module that TCB info names; here, SEAMATTRIBUTES are zero as it demands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.verdict import TcbStatus
from ensconce.evidence.report import TdReport
from ensconce.platform.simulated.collateral import ABSENT, isv_level

TDX = ("TDX v4", "TDX v5")
LATER = ("TDX v5",)
MODULE = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
MODULES = "collateral.tcb_info.tdx_module"


def case(check: str, made: Any, kinds: tuple[str, ...] = TDX, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, "kinds": kinds, **more}


def of(w: Any, **changes: Any) -> bytes:
    """A quote of another report."""
    quote: bytes = w.quote(w.report(**changes))
    return quote


def svn(w: Any, isv_svn: int | None = None, version: int | None = None, microcode: int | None = None) -> bytes:
    """TEE_TCB_SVN of the machine, with other components."""
    was = w.vendor.TEE_TCB_SVN[:3]
    changed = [old if new is None else new for new, old in zip((isv_svn, version, microcode), was, strict=True)]
    return bytes([*changed, *w.vendor.TEE_TCB_SVN[3:]])


def bit(number: int) -> bytes:
    """TD attributes with a bit beside SEPT_VE_DISABLE."""
    return (1 << 28 | 1 << number).to_bytes(8, "little")


def identity(name: str = "TDX_01", **changes: object) -> dict[str, object]:
    return {"id": name, **MODULE, "tcbLevels": [isv_level(5, "UpToDate")], **changes}


def modules(*identities: object) -> Callable[[Any], Any]:
    return lambda w: w.tcb_info(tdxModuleIdentities=list(identities))


CASES = {
    "TDX: DEBUG": case("quote.debug", lambda w: of(w, td_attributes=bit(0))),
    "TDX: without SEPT_VE_DISABLE": case("quote.td_attributes", lambda w: of(w, td_attributes=bytes(8))),
    **{
        f"TDX: attribute {name}": case(check, lambda w, number=number: of(w, td_attributes=bit(number)))
        for name, number, check in (
            ("reserved bit 1", 1, "quote.td_attributes"),
            ("HGS+ profiling", 4, "quote.td_attributes"),
            ("performance profiling", 5, "quote.td_attributes"),
            ("reserved bit 8", 8, "quote.td_attributes"),
            ("SERVTD_EXT", 17, "quote.service_td"),
            ("reserved bit 24", 24, "quote.td_attributes"),
            ("MIGRATABLE", 29, "quote.td_attributes"),
            ("reserved bit 32", 32, "quote.td_attributes"),
            ("reserved bit 61", 61, "quote.td_attributes"),
        )
    },
    "TDX: a service TD": case("quote.service_td", lambda w: of(w, mr_service_td=b"\1" * 48), LATER),
    # The module.
    "TDX: MRSIGNERSEAM of somebody": case("quote.tdx_module", lambda w: of(w, mr_signer_seam=b"\1" * 48)),
    "TDX: MRSIGNERSEAM is not the one that TCB info names": case(
        "quote.tdx_module", modules(identity(mrsigner="01" * 48))
    ),
    "TDX: SEAMATTRIBUTES": case("quote.tdx_module", lambda w: of(w, seam_attributes=b"\1" + bytes(7))),
    "TDX: SEAMATTRIBUTES that TCB info names": case(
        "quote.tdx_module",
        lambda w: (of(w, seam_attributes=b"\1" + bytes(7)), modules(identity(attributes="01" + "00" * 7))(w)),
        alone=True,
    ),
    "TDX: SEAMATTRIBUTES that the mask hides": case(
        "quote.tdx_module",
        lambda w: (of(w, seam_attributes=b"\1" + bytes(7)), modules(identity(attributesMask="00" * 8))(w)),
    ),
    "TDX: SEAMATTRIBUTES are not the ones that TCB info names": case(
        "quote.tdx_module", modules(identity(attributes="01" + "00" * 7))
    ),
    "TDX: no identity of the module's major version": case(
        "quote.tdx_module", lambda w: of(w, tee_tcb_svn=svn(w, version=2))
    ),
    "TDX: no identities": case("quote.tdx_module", modules()),
    "TDX: identities left out": case("quote.tdx_module", lambda w: w.tcb_info(tdxModuleIdentities=ABSENT)),
    "TDX: identity of another major version": case("quote.tdx_module", modules(identity("TDX_03"))),
    "TDX: module below all levels": case("tcb.level", lambda w: of(w, tee_tcb_svn=svn(w, isv_svn=3))),
    "TDX: module of version 1.0 below all levels": case(
        "tcb.level", lambda w: of(w, tee_tcb_svn=svn(w, isv_svn=4, version=0))
    ),
    "TDX: module Revoked": case("tcb.revoked", lambda w: w.papers(module_status="Revoked")),
    "TDX: module Revoked, one level down": case(
        "tcb.revoked", modules(identity(tcbLevels=[isv_level(6, "UpToDate"), isv_level(4, "Revoked")]))
    ),
    "TDX: late microcode below all levels": case("tcb.level", lambda w: of(w, tee_tcb_svn=svn(w, microcode=5))),
    **{
        f"TDX: below all levels by component {number}": case(
            "tcb.level", lambda w, number=number: w.levels(w.level(**{f"t{number}": 1}))
        )
        for number in (2, 3, 15)
    },
    # Its TCB now.
    "TDX: now below all levels": case("tcb.level", lambda w: of(w, tee_tcb_svn2=svn(w, isv_svn=3)), LATER),
    "TDX: now late microcode below all levels": case(
        "tcb.level", lambda w: of(w, tee_tcb_svn2=svn(w, microcode=5)), LATER
    ),
    "TDX: now of an unknown major version": case(
        "quote.tdx_module", lambda w: of(w, tee_tcb_svn2=svn(w, version=2)), LATER
    ),
    "TDX: now Revoked": case(
        "tcb.revoked",
        lambda w: (
            of(w, tee_tcb_svn2=svn(w, isv_svn=4)),
            modules(identity(tcbLevels=[isv_level(5, "UpToDate"), isv_level(4, "Revoked")]))(w),
        ),
        LATER,
    ),
    # What TCB info says of modules.
    "TDX: tdxModule left out": case(MODULES, lambda w: w.tcb_info(tdxModule=ABSENT)),
    "TDX: tdxModule with half a signer": case(
        MODULES,
        lambda w: w.tcb_info(tdxModule=MODULE | {"mrsigner": "00" * 47}),
    ),
    "TDX: identity with half a signer": case(MODULES, modules(identity(mrsigner="00" * 47))),
    "TDX: identity without a mask": case(MODULES, modules(identity(attributesMask=None))),
    "TDX: identity of another form": case(MODULES, modules("TDX_01")),
    "TDX: identities of another form": case(MODULES, lambda w: w.tcb_info(tdxModuleIdentities="TDX_01")),
    "TDX: too many identities": case(MODULES, modules(*(identity(f"TDX_{n:02X}") for n in range(65))), alone=True),
    "TDX: identity twice": case(
        MODULES, modules(identity(), identity("tdx_01", tcbLevels=[isv_level(5, "Revoked")])), alone=True
    ),
    "TDX: identity without levels": case(MODULES, modules(identity(tcbLevels=[]))),
    "TDX: module levels shuffled": case(
        MODULES, modules(identity(tcbLevels=[isv_level(4, "OutOfDate"), isv_level(5, "UpToDate")])), alone=True
    ),
    "TDX: a lower level hides that the module's own is revoked": case(
        MODULES, modules(identity(tcbLevels=[isv_level(4, "UpToDate"), isv_level(5, "Revoked")])), alone=True
    ),
    **{
        f"TDX: module {status}": case(MODULES, lambda w, status=status: w.papers(module_status=status))
        for status in ("ConfigurationNeeded", "SWHardeningNeeded", "Fine")
    },
    "TDX: 15 components": case(
        "collateral.tcb_info.levels",
        lambda w: w.levels({**w.level(), "tcb": w.level()["tcb"] | {"tdxtcbcomponents": [{"svn": 0}] * 15}}),
    ),
    "TDX: no components": case(
        "collateral.tcb_info.levels",
        lambda w: w.levels({**w.level(), "tcb": w.level()["tcb"] | {"tdxtcbcomponents": None}}),
    ),
}


def test_negative(negative: Callable[[], None]) -> None:
    negative()


# Module, platform, quoting enclave and what runs now: the verdict has the troubles of all of them.

UP, HARDENING, CONFIGURATION, BOTH, OUT, OUT_CONFIGURATION = list(TcbStatus)[:6]
WITH_AN_OUTDATED_PART = {
    UP: OUT,
    HARDENING: OUT,
    CONFIGURATION: OUT_CONFIGURATION,
    BOTH: OUT_CONFIGURATION,
    OUT: OUT,
    OUT_CONFIGURATION: OUT_CONFIGURATION,
}


@pytest.mark.parametrize("kind", TDX)
@pytest.mark.parametrize(("platform", "expected"), WITH_AN_OUTDATED_PART.items())
@pytest.mark.parametrize("part", ["module_status", "qe_status"])
def test_an_outdated_part_makes_the_platform_outdated(
    worlds: dict[str, Any], kind: str, platform: TcbStatus, expected: TcbStatus, part: str
) -> None:
    world = worlds[kind]
    assert world.verify(papers=world.papers(tcb_status=platform)).status is platform
    assert world.verify(papers=world.papers(tcb_status=platform, **{part: "OutOfDate"})).status is expected


@pytest.mark.parametrize("kind", TDX)
def test_each_level_that_counts_adds_its_advisories(worlds: dict[str, Any], kind: str) -> None:
    world = worlds[kind]
    recipe = {"tcb_status": "SWHardeningNeeded", "advisory_ids": ["SIMULATED-SA-00009"]}
    verdict = world.verify(of(world, tee_tcb_svn=svn(world, isv_svn=4)), world.papers(**recipe))
    assert set(verdict.advisory_ids) == {"SIMULATED-SA-00002", "SIMULATED-SA-00009"}
    verdict = world.verify(of(world, tee_tcb_svn=svn(world, microcode=6)))
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


@pytest.mark.parametrize("kind", TDX)
def test_a_module_of_version_1_has_the_platforms_level(worlds: dict[str, Any], kind: str) -> None:
    world = worlds[kind]
    svns = {"tee_tcb_svn": svn(world, version=0)} | ({"tee_tcb_svn2": svn(world, version=0)} if kind in LATER else {})
    assert world.verify(of(world, **svns), world.papers(module_status="OutOfDate")).status is UP


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (UP, TcbStatus.TD_RELAUNCH_ADVISED),
        (HARDENING, TcbStatus.TD_RELAUNCH_ADVISED),
        (CONFIGURATION, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED),
        (OUT, OUT),
        (OUT_CONFIGURATION, OUT_CONFIGURATION),
    ],
)
def test_launched_out_of_date_and_updated_since(
    worlds: dict[str, Any], platform: TcbStatus, expected: TcbStatus
) -> None:
    world = worlds["TDX v5"]
    quote = of(world, tee_tcb_svn=svn(world, isv_svn=4))
    verdict = world.verify(quote, world.papers(tcb_status=platform))
    assert verdict.status is expected
    assert "SIMULATED-SA-00002" in verdict.advisory_ids


@pytest.mark.parametrize(("platform", "expected"), WITH_AN_OUTDATED_PART.items())
def test_what_it_runs_at_now_counts(worlds: dict[str, Any], platform: TcbStatus, expected: TcbStatus) -> None:
    """dcap-qvl and Intel's library give the status at launch and tell this one apart, or not at all."""
    world = worlds["TDX v5"]
    quote = of(world, tee_tcb_svn2=svn(world, isv_svn=4))
    verdict = world.verify(quote, world.papers(tcb_status=platform))
    assert verdict.status is expected
    assert "SIMULATED-SA-00002" in verdict.advisory_ids


def test_every_body_of_version_5_is_read(worlds: dict[str, Any]) -> None:
    world = worlds["TDX v5"]
    for size in (584, 648, 885):
        body = TdReport.from_bytes(world.report().to_bytes()[:size].ljust(size, b"\0"))
        assert world.verify(world.quote(body, version=5)).report == body
