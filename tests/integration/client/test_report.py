"""The verification report: each refusal at its step, and no word of a step that was not taken. Real servers, quotes."""

from __future__ import annotations

import base64
import datetime as dt
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Identity, Policy, StatusUntil
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.report import STEPS, Report, examine
from ensconce.client.report_html import page_of
from ensconce.client.report_text import lines_of
from ensconce.errors import UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe
from ensconce.ratls.authority import CertificateAuthority

DOMAIN = "digits.example.test"
DAY = 24 * 3600
STEP_NAMES = list(STEPS)
NOT_ASKED = ("published", "freshness")


def report_on(world, target: Address, **options) -> Report:
    return examine(world.service(target, timeout=5.0, **options), target)


def states(report: Report) -> dict[str, str]:
    return {step.name: step.state for step in report.steps}


def test_an_accepted_replica_passed_every_step(world, recorder) -> None:
    server = recorder(world.replica())
    report = report_on(world, server.target)
    assert states(report) == {name: "not asked" if name in NOT_ASKED else "passed" for name in STEP_NAMES}
    assert (report.outcome, report.exit_status, report.error) == ("accepted", 0, None)
    assert all(step.held for step in report.steps if step.name not in NOT_ASKED)
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
    assert unknown.meaning.startswith("This version")
    assert unknown.url is not None


def appraiser(world, policy: Policy | None = None, recipe: CollateralRecipe | None = None) -> Appraiser:
    given = world.appraiser()
    collateral = world.vendor.collateral(world.now, recipe) if recipe else world.collateral
    return Appraiser(policy or given.policy, Held(collateral), lambda: world.now)


class Held:
    def __init__(self, collateral) -> None:
        self.collateral = collateral

    def get_for(self, quote: bytes):
        if self.collateral is None:
            raise UnreachableError("collateral.fetch", "the PCCS cannot be reached")
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        pass


def expired(world):
    return world.replica(issued=world.now - 2 * DAY)


def no_evidence(world):
    return world.self_signed(ec.generate_private_key(ec.SECP256R1()), None)


def stolen_evidence(world):
    return world.thief(world.replica(), self_signed=False)


def other_name(world):
    return world.replica(domain="other.example.test")


def other_issuer(world):
    return world.replica(authority=CertificateAuthority.create("owner", world.now))


def other_code(world):
    return world.replica(mr_enclave=bytes(32))


def debug(world):
    return world.replica(debug=True)


def sound(world):
    return world.replica()


def bad(**recipe):
    return lambda world: appraiser(world, recipe=CollateralRecipe(**recipe))


def without_collateral(world):
    return Appraiser(world.appraiser().policy, Held(None), lambda: world.now)


def for_hardware(world):
    return world.appraiser(root="intel")


def wrong_signature(world):
    collateral = replace(world.collateral, tcb_info_signature=bytes(64))
    return Appraiser(world.appraiser().policy, Held(collateral), lambda: world.now)


REFUSALS = [
    # who answers, by whom it is judged, the step that fails, its check, the exit status
    (no_evidence, None, "evidence", "certificate.evidence", 3),
    (stolen_evidence, None, "evidence", "ratls.pubkey_hash", 3),
    (expired, None, "certificate", "certificate.validity", 3),
    (other_name, None, "certificate", "certificate.name", 3),
    (other_issuer, None, "certificate", "certificate.issuer", 3),
    (sound, for_hardware, "claims", "policy.root", 4),
    (debug, None, "claims", "policy.debug", 4),
    (sound, without_collateral, "collateral", "collateral.fetch", 5),
    (sound, bad(tcb_info=DocumentRecipe(next_update=-60)), "documents", "collateral.tcb_info.expired", 3),
    (sound, wrong_signature, "quote", "collateral.tcb_info.signature", 3),
    (sound, bad(tcb_status="Revoked"), "quote", "tcb.revoked", 3),
    (sound, bad(tcb_status="OutOfDate"), "policy", "policy.tcb_status", 4),
    (other_code, None, "identity", "policy.mr_enclave", 4),
]


@pytest.mark.parametrize(("who", "judge", "step", "check", "status"), REFUSALS)
def test_a_refusal_is_told_at_its_step(world, recorder, who, judge, step, check, status) -> None:
    server = recorder(who(world))
    report = report_on(world, server.target, **({"appraiser": judge(world)} if judge else {}))
    expected = dict.fromkeys(STEP_NAMES[: STEP_NAMES.index(step)], "passed") | {step: "failed"}
    expected |= dict.fromkeys(STEP_NAMES[STEP_NAMES.index(step) + 1 :], "not reached")
    assert states(report) == expected | dict.fromkeys(NOT_ASKED, "not asked")
    assert report.error is not None
    assert (report.error.check, report.exit_status) == (check, status)
    assert report.outcome == ("unreachable" if status == 5 else "refused")
    assert (report.accepted, report.valid_until) == (None, None)
    (failed,) = [each for each in report.steps if each.error]
    assert (failed.name, failed.error) == (step, report.error)
    value = report.to_json_object()
    assert value["error"] == report.error.fields()
    assert (value["accepted"], value["exit_status"]) == (False, status)
    assert (value["verdict"], value["valid_until"]) == (None, None)
    page, text = page_of(report), "\n".join(lines_of(report))
    assert check in page
    assert check in text
    assert "FAIL" in text
    assert server.received == b""


def test_nobody_there(world, find_port) -> None:
    report = report_on(world, Address("127.0.0.1", find_port()))
    assert states(report)["connection"] == "failed"
    assert set(states(report).values()) == {"failed", "not reached", "not asked"}
    assert (report.outcome, report.exit_status) == ("unreachable", 5)
    assert (report.quote, report.certificate, report.simulated, report.warning) == (None, None, None, None)


def test_no_tls_there(world, listen) -> None:
    listener = listen(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    report = report_on(world, listener.address)
    listener.stop()
    assert states(report)["connection"] == "passed"
    assert states(report)["tls"] == "failed"
    assert report.exit_status == 5


def test_a_fresh_quote_is_a_step_of_its_own(world, serve) -> None:
    grpc, _ = serve(world.replica())
    report = report_on(world, grpc, freshness=True)
    assert states(report)["freshness"] == "passed"
    (step,) = [each for each in report.steps if each.name == "freshness"]
    assert [each.check for each in step.held] == ["fresh.quote", "fresh.report_data", "fresh.identity"]
    assert report.fresh_quote not in (None, report.quote)


def test_a_quote_for_another_channel_fails_that_step_alone(world, serve) -> None:
    grpc, _ = serve(world.replica(), lambda data: world.quote(bytes(64)))
    report = report_on(world, grpc, freshness=True)
    assert report.error is not None
    assert report.error.check == "fresh.report_data"
    assert [name for name, state in states(report).items() if state == "failed"] == ["freshness"]
    assert report.outcome == "refused"


def test_freshness_that_was_asked_for_is_not_reached(world, recorder) -> None:
    report = report_on(world, recorder(other_code(world)).target, freshness=True)
    assert states(report)["tls"] == "failed"  # a server that knows no fresh quotes is not asked less
    assert states(report)["freshness"] == "not reached"


def test_a_simulated_result_says_so_first_and_everywhere(world, recorder) -> None:
    for who in (sound(world), other_code(world)):
        report = report_on(world, recorder(who).target)
        assert report.simulated is True
        assert next(iter(lines_of(report))).startswith("SIMULATED")
        value = report.to_json_object()
        assert value["simulated"] is True
        assert value["warning"].startswith("SIMULATED")
        page = page_of(report)
        assert "<title>SIMULATED" in page
        assert '<p class="simulated">SIMULATED' in page
        assert page.index('class="simulated"') < page.index("<h1>")


class Blocks(HTMLParser):
    """The files in a page, by their names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.files: dict[str, str] = {}
        self._name, self._inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self._inside = tag if tag in ("summary", "pre") else self._inside

    def handle_endtag(self, tag) -> None:
        self._inside = ""

    def handle_data(self, data) -> None:
        if self._inside == "summary":
            self._name = data
        elif self._inside == "pre":
            self.files[self._name] = data


def test_what_is_filed_can_be_verified_again(world, recorder, tmp_path: Path) -> None:
    report = report_on(world, recorder(world.replica()).target)
    for name, text in Blocks(page_of(report)).files.items():
        (tmp_path / (name or "commands")).write_text(text)
    commands = (tmp_path / "commands").read_text().replace("ensconce ", f"{sys.executable} -m ensconce ") + " --json"
    done = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
    verdict = json.loads(done.stdout)
    assert report.accepted is not None
    assert verdict == report.accepted.acceptance.verdict.to_json_object()
    value = report.to_json_object()
    assert base64.b64decode(value["evidence"]["quote"]) == report.quote
    assert value["evidence"]["quote_sha256"] in page_of(report)


def test_json_has_these_members(world, recorder) -> None:
    value = report_on(world, recorder(world.replica()).target).to_json_object()
    assert value["report"] == "ensconce-verification/1"
    documented = (Path(__file__).parents[3] / "docs/reference/verification-report.md").read_text()
    assert [name for name in value if f"`{name}`" not in documented] == []
    assert [name for name in value["evidence"] if f"`{name}`" not in documented] == []
    assert [name for name in STEPS if f"`{name}`" not in documented] == []
    json.dumps(value)


def test_what_was_not_asked_of_a_certificate_is_not_said(world, recorder) -> None:
    report = report_on(world, recorder(other_issuer(world)).target, authority=None)
    assert report.outcome == "accepted"
    assert "certificate.issuer" not in {each.check for step in report.steps for each in step.held}


def test_names_in_certificates_stay_text(world, recorder) -> None:
    stranger = CertificateAuthority.create("<script>alert(1)</script>\u202e\x1b[2J", world.now)
    report = report_on(world, recorder(world.replica(authority=stranger)).target)
    assert report.error is not None
    assert report.error.check == "certificate.issuer"
    page = page_of(report)
    assert "\\&lt;script\\&gt;alert(1)" in page
    assert not [bad for bad in ("<script", "\u202e", "\x1b") if bad in page]
    assert not [line for line in lines_of(report) if not line.isprintable()]
