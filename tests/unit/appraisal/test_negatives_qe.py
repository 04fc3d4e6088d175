"""Quoting enclaves that a verifier of DCAP must not accept, and identities that say nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ensconce.appraisal.verdict import TcbStatus
from ensconce.evidence.report import Attributes
from ensconce.platform.simulated.collateral import ABSENT, isv_level

PLAIN = Attributes.INIT | Attributes.MODE64BIT
ENDS_NOWHERE = "it treats every status but UpToDate and Revoked as OutOfDate"


def case(check: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, **more}


def by(w: Any, **changes: Any) -> bytes:
    """A quote by another quoting enclave."""
    quote: bytes = w.quote(quoting_enclave=replace(w.enclave, **changes))
    return quote


def identity(check: str, *, alone: bool = False, intel: str = "", **changes: object) -> dict[str, Any]:
    return case(check, lambda w: w.qe_identity(**changes), alone=alone, intel=intel)


def levels(*rows: tuple[int, str]) -> Callable[[Any], Any]:
    """QE identity with these levels; security versions relative to the enclave's."""
    return lambda w: w.qe_identity(tcbLevels=[isv_level(w.enclave.isv_svn + svn, status) for svn, status in rows])


FORMAT = "collateral.qe_identity.format"

CASES = {
    "QE: another MRSIGNER": case("quote.qe_identity", lambda w: by(w, mr_signer=bytes(32))),
    "QE: another ISVPRODID": case("quote.qe_identity", lambda w: by(w, isv_prod_id=w.enclave.isv_prod_id + 1)),
    "QE: the other kind's ISVPRODID": case("quote.qe_identity", lambda w: by(w, isv_prod_id=3 - w.enclave.isv_prod_id)),
    "QE: another MISCSELECT": case("quote.qe_identity", lambda w: by(w, misc_select=1)),
    "QE: ATTRIBUTES without the provisioning key": case(
        "quote.qe_identity", lambda w: by(w, attributes=Attributes(PLAIN, 3))
    ),
    "QE: ATTRIBUTES with a bit more": case(
        "quote.qe_identity",
        lambda w: by(w, attributes=Attributes(PLAIN | Attributes.PROVISION_KEY | Attributes.KSS, 3)),
    ),
    "QE: debug": case(
        "quote.qe_identity",
        lambda w: by(w, attributes=Attributes(PLAIN | Attributes.PROVISION_KEY | Attributes.DEBUG, 3)),
    ),
    "QE: debug, and its identity does not mind": case(
        "quote.qe_identity",
        lambda w: (
            by(w, attributes=Attributes(PLAIN | Attributes.PROVISION_KEY | Attributes.DEBUG, 3)),
            w.qe_identity(attributes="00" * 16, attributesMask="00" * 16),
        ),
        intel="it compares what the mask shows and no more",
    ),
    "QE: ISVSVN below all levels": case("tcb.qe_level", lambda w: by(w, isv_svn=1)),
    "QE: Revoked": case("tcb.revoked", lambda w: w.papers(qe_status="Revoked")),
    "QE: Revoked, one level down": case("tcb.revoked", levels((1, "UpToDate"), (-1, "Revoked"))),
    "QE: levels that nothing reaches": case("tcb.qe_level", levels((1, "UpToDate"))),
    "QE: report_data does not bind the key": case("quote.qe_report_data", lambda w: w.quote(qe_report_data=bytes(64))),
    "QE: report_data binds the key in the wrong half": case(
        "quote.qe_report_data",
        lambda w: w.quote(qe_report_data=bytes(32) + w.sound[w.at["QE report"] + 320 :][:32]),
    ),
    "QE: id of the other kind": case(
        "collateral.qe_identity.id", lambda w: w.qe_identity(id="QE" if w.tdx else "TD_QE")
    ),
    "QE: id QVE": identity("collateral.qe_identity.id", id="QVE"),
    "QE: id left out": identity("collateral.qe_identity.id", id=ABSENT),
    "QE: identity of the other kind": case(
        "collateral.qe_identity.id",
        lambda w: replace(
            w.sound_papers,
            **{
                member: getattr(w.papers(tee="sgx" if w.tdx else "tdx"), member)
                for member in ("qe_identity", "qe_identity_signature")
            },
        ),
    ),
    "QE: identity version 1": identity("collateral.qe_identity.version", version=1),
    "QE: identity version 3": case(
        "collateral.qe_identity.version", lambda w: w.qe_identity(version=3), kinds=("SGX v3",)
    ),
    # dcap-qvl reads it, though nobody has described it.
    "QE: identity version 3 for TDX": case(
        "collateral.qe_identity.version",
        lambda w: w.qe_identity(version=3),
        kinds=("TDX v4", "TDX v5"),
        alone=True,
    ),
    "QE: identity of another MRSIGNER": identity("quote.qe_identity", mrsigner="00" * 32),
    "QE: identity with half an MRSIGNER": identity(FORMAT, mrsigner="00" * 31),
    "QE: identity without MRSIGNER": identity(FORMAT, mrsigner=ABSENT),
    "QE: identity without ISVPRODID": identity(FORMAT, isvprodid=ABSENT),
    "QE: identity of another MISCSELECT": identity("quote.qe_identity", miscselect="00000001"),
    "QE: identity of other ATTRIBUTES": identity("quote.qe_identity", attributes="01" + "00" * 15),
    "QE: identity with ATTRIBUTES that its mask hides": identity(FORMAT, attributes="15" + "00" * 15, alone=True),
    "QE: identity with MISCSELECT that its mask hides": identity(
        FORMAT, miscselect="00000001", miscselectMask="FFFFFFFE", alone=True
    ),
    "QE: identity without a mask": identity(FORMAT, attributesMask=ABSENT),
    "QE: identity without levels": identity("collateral.qe_identity.levels", tcbLevels=[]),
    "QE: levels shuffled": case(
        "collateral.qe_identity.levels",
        levels((-1, "OutOfDate"), (0, "UpToDate")),
        alone=True,
        intel="the first match decides",
    ),
    "QE: a lower level hides that the own is revoked": case(
        "collateral.qe_identity.levels",
        levels((-1, "UpToDate"), (0, "Revoked")),
        alone=True,
        intel="the first match decides",
    ),
    "QE: ConfigurationNeeded": case(
        "collateral.qe_identity.levels",
        lambda w: w.papers(qe_status="ConfigurationNeeded"),
        alone=True,
        intel=ENDS_NOWHERE,
    ),
    "QE: SWHardeningNeeded": case(
        "collateral.qe_identity.levels",
        lambda w: w.papers(qe_status="SWHardeningNeeded"),
    ),
    "QE: unknown status": case("collateral.qe_identity.levels", lambda w: w.papers(qe_status="Fine")),
    "QE: a level without date": case(
        FORMAT,
        lambda w: w.qe_identity(tcbLevels=[isv_level(w.enclave.isv_svn, "UpToDate", date="never")]),
        alone=True,
    ),
    "QE: issue date that is none": identity(FORMAT, issueDate="2026-13-01T00:00:00Z"),
    "QE: evaluation number left out": identity(FORMAT, tcbEvaluationDataNumber=ABSENT),
}


def test_negative(negative: Callable[[], None]) -> None:
    negative()


def test_an_outdated_quoting_enclave_makes_the_platform_outdated(world: Any) -> None:
    assert world.verify(papers=world.papers(qe_status="OutOfDate")).status is TcbStatus.OUT_OF_DATE
    verdict = world.verify(by(world, isv_svn=world.enclave.isv_svn - 1))
    assert verdict.status is TcbStatus.OUT_OF_DATE
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


def test_of_misconfigured_platforms_it_makes_both(world: Any) -> None:
    papers = world.papers(tcb_status="ConfigurationAndSWHardeningNeeded", qe_status="OutOfDate")
    assert world.verify(papers=papers).status is TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
