"""The verification report: each refusal at its step, and no word of a step that was not taken. Real servers, quotes."""

from __future__ import annotations

import datetime as dt

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Identity, Policy, StatusUntil
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.report import STEPS, Report, examine
from ensconce.errors import UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe

DOMAIN = "digits.example.test"
DAY = 24 * 3600
STEP_NAMES = list(STEPS)


def report_on(world, target: Address, **options) -> Report:
    return examine(world.service(target, timeout=5.0, **options), target)


def states(report: Report) -> dict[str, str]:
    return {step.name: step.state for step in report.steps}


def test_an_accepted_replica_passed_every_step(world, recorder) -> None:
    server = recorder(world.replica())
    report = report_on(world, server.target)
    assert states(report) == {name: "not asked" if name == "freshness" else "passed" for name in STEP_NAMES}
    assert (report.outcome, report.exit_status, report.error) == ("accepted", 0, None)
    assert all(step.held for step in report.steps if step.name not in ("freshness", "collateral"))
    held = {each.check: each for step in report.steps for each in step.held}
    assert held["policy.mr_enclave"].found == bytes(range(32)).hex()
    assert held["tls.handshake"].found.startswith("TLSv1.3, ")
    assert held["tls.alpn"].found == "h2"
    assert held["certificate.name"].rule == DOMAIN
    assert server.received == b""


def test_it_is_good_until_the_first_end(world, recorder) -> None:
    report = report_on(world, recorder(world.replica()).target)
    assert report.accepted is not None
    assert report.valid_until == report.accepted.valid_until == report.ends[0][0]
    assert report.ends[0][0] == int(report.accepted.certificate.not_valid_after_utc.timestamp())
    assert "certificate.validity" in report.ends[0][1]
    ends = {what: end for end, what in report.ends}
    verdict = report.accepted.acceptance.verdict
    assert min(end for what, end in ends.items() if "collateral." in what or "pck_chain" in what) == verdict.valid_until
    authority = int(world.authority.certificate.not_valid_after_utc.timestamp())
    assert authority in ends.values()


def test_an_exception_of_the_policy_ends_it(world, recorder) -> None:
    today = dt.datetime.fromtimestamp(world.now, dt.UTC).date()
    policy = Policy(
        roots=(world.vendor.root_name,),
        tcb_statuses=(TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.SW_HARDENING_NEEDED, today)),
        identities=(Identity(name="server", mr_enclave=bytes(range(32))),),
    )
    recipe = CollateralRecipe(tcb_status="SWHardeningNeeded", advisory_ids=["INTEL-SA-00615", "INTEL-SA-99999"])
    report = report_on(world, recorder(world.replica()).target, appraiser=appraiser(world, policy, recipe))
    assert report.outcome == "accepted"
    midnight = dt.datetime.combine(today + dt.timedelta(days=1), dt.time(), dt.UTC)
    assert (int(midnight.timestamp()), "tcb status [policy.tcb_status]") in report.ends
    assert report.valid_until == report.ends[0][0] <= int(midnight.timestamp())
    known, unknown = report.advisories
    assert "MMIO" in known.meaning
    assert known.url is not None
    assert "intel-sa-00615" in known.url
    assert unknown.meaning.startswith("Not known")
    assert unknown.url is not None


def appraiser(world, policy: Policy | None = None, recipe: CollateralRecipe | None = None, at: int = 0) -> Appraiser:
    given = world.appraiser()
    collateral = world.vendor.collateral(world.now, recipe) if recipe else world.collateral
    return Appraiser(policy or given.policy, Held(collateral), lambda: world.now + at)


class Held:
    def __init__(self, collateral) -> None:
        self.collateral = collateral

    def get_for(self, quote: bytes):
        if self.collateral is None:
            raise UnreachableError("collateral.fetch", "the PCCS cannot be reached")
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        pass
