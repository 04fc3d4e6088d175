from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.policy import (
    Acceptance,
    AttributeMasks,
    Identity,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.verdict import GenuineVerdict, TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.pki import SimulatedVendor

MeasuredBy = Callable[..., Verdict]
Forge = Callable[..., Verdict]

SOUND = Attributes.INIT | Attributes.MODE64BIT
CODE = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))
SIGNED = Identity(name="signed", mr_signer=b"\x22" * 32, isv_prod_id=7, min_isv_svn=3)
GUEST = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x44" * 48))


def test_a_named_measurement_is_accepted(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    accepted = policy().judge(verdict())
    assert accepted.identity == CODE
    assert accepted.report.mr_enclave == b"\x11" * 32
    assert accepted.policy_sha256 == policy().sha256


def test_a_signer_with_product_and_version_is_accepted(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    assert policy(SIGNED).judge(verdict()).identity == SIGNED
    assert policy(SIGNED).judge(verdict(isv_svn=4, mr_enclave=b"\x99" * 32)).identity == SIGNED


def test_the_first_identity_that_fits_counts(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    assert policy(CODE, SIGNED).judge(verdict()).identity == CODE
    assert policy(SIGNED, CODE).judge(verdict()).identity == SIGNED
    assert policy(CODE, SIGNED).judge(verdict(mr_enclave=b"\x99" * 32)).identity == SIGNED


@pytest.mark.parametrize(
    ("fields", "check", "found", "rule"),
    [
        ({"mr_enclave": b"\x99" * 32}, "policy.mr_enclave", "99" * 32, f"mr_enclave: {'11' * 32}"),
        ({"flags": SOUND | Attributes.DEBUG}, "policy.debug", "DEBUG", "debug: false (identity 'code')"),
        ({"flags": SOUND | Attributes.PROVISION_KEY}, "policy.attributes", "0x0000000000000015", "PROVISION_KEY"),
        ({"flags": SOUND | Attributes.EINITTOKEN_KEY}, "policy.attributes", "0x0000000000000025", "EINITTOKEN_KEY"),
        ({"flags": Attributes.INIT}, "policy.attributes", "0x0000000000000001", "MODE64BIT"),
        ({"flags": Attributes.MODE64BIT}, "policy.attributes", "0x0000000000000004", "INIT"),
        ({"flags": SOUND | 1 << 3}, "policy.attributes", "0x000000000000000d", "reserved"),
        ({"flags": SOUND | 1 << 63}, "policy.attributes", "0x8000000000000005", "reserved"),
        ({"config_id": b"\x01" + bytes(63)}, "policy.attributes", "config_id", "zero"),
        ({"config_svn": 1}, "policy.attributes", "config_svn", "zero"),
        ({"isv_family_id": b"\x01" * 16}, "policy.attributes", "isv_family_id", "zero"),
        ({"isv_ext_prod_id": b"\x01" * 16}, "policy.attributes", "isv_ext_prod_id", "zero"),
        ({"tcb_status": "OutOfDate"}, "policy.tcb_status", "OutOfDate (SIM", "tcb_statuses: [UpToDate]"),
        ({"tcb_status": "SWHardeningNeeded"}, "policy.tcb_status", "SWHardeningNeeded", "[UpToDate]"),
    ],
)
def test_what_the_policy_does_not_name_is_refused(
    policy: Callable[..., Policy],
    verdict: MeasuredBy,
    forged: Forge,
    request: pytest.FixtureRequest,
    fields: dict[str, Any],
    check: str,
    found: str,
    rule: str,
) -> None:
    report: Callable[..., SgxReport] = request.getfixturevalue("report")
    status = fields.pop("tcb_status", "UpToDate") if "tcb_status" in fields else "UpToDate"
    # The verifier refuses debug enclaves before any policy sees them; the policy must do so by itself.
    judged = forged(verdict(tcb_status=status), report=report(**fields))
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged)
    assert caught.value.check == check
    assert found in (caught.value.found or "")
    assert rule in (caught.value.rule or "")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"mr_signer": b"\x99" * 32}, "policy.mr_signer"),
        ({"isv_prod_id": 8}, "policy.isv_prod_id"),
        ({"isv_svn": 2}, "policy.min_isv_svn"),
    ],
)
def test_a_signer_is_held_to_all_three(
    policy: Callable[..., Policy], verdict: MeasuredBy, fields: dict[str, Any], check: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        policy(SIGNED).judge(verdict(**fields))
    assert caught.value.check == check


def test_a_measurement_with_a_signer_is_held_to_both(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    both = dataclasses.replace(SIGNED, mr_enclave=b"\x11" * 32)
    assert policy(both).judge(verdict()).identity == both
    for changed in ({"mr_enclave": b"\x99" * 32}, {"mr_signer": b"\x99" * 32}):
        with pytest.raises(RefusedError):
            policy(both).judge(verdict(**changed))


def test_a_refusal_speaks_of_the_nearest_identity(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    with pytest.raises(RefusedError) as caught:
        policy(CODE, SIGNED).judge(verdict(mr_enclave=b"\x99" * 32, isv_svn=1))
    assert caught.value.check == "policy.min_isv_svn"
    assert caught.value.rule == "min_isv_svn: 3 (identity 'signed', and one other identity)"


@pytest.mark.parametrize(
    ("masks", "check"),
    [
        (AttributeMasks(flags=Mask(2**64 - 1, SOUND), xfrm=Mask(2**64 - 1, 3), misc_select=Mask(2**32 - 1, 0)), None),
        (AttributeMasks(flags=Mask(Attributes.KSS, 0)), None),
        (AttributeMasks(flags=Mask(Attributes.KSS, Attributes.KSS)), "policy.attributes.flags"),
        (AttributeMasks(xfrm=Mask(0xE4, 0xE4)), "policy.attributes.xfrm"),
        (AttributeMasks(misc_select=Mask(1, 1)), "policy.attributes.misc_select"),
    ],
)
def test_attributes_are_held_against_masks(
    policy: Callable[..., Policy], verdict: MeasuredBy, masks: AttributeMasks, check: str | None
) -> None:
    strict = policy(dataclasses.replace(CODE, attributes=masks))
    if check is None:
        assert strict.judge(verdict())
        return
    with pytest.raises(RefusedError) as caught:
        strict.judge(verdict())
    assert caught.value.check == check
    assert "mask: 0x" in (caught.value.rule or "")


def test_a_mask_cannot_widen_what_is_asked_of_everybody(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    every = dataclasses.replace(CODE, attributes=AttributeMasks(flags=Mask(0x15, 0x15)))
    with pytest.raises(RefusedError) as caught:
        policy(every).judge(verdict(flags=SOUND | Attributes.PROVISION_KEY))
    assert caught.value.check == "policy.attributes"


@pytest.mark.parametrize(("mask", "value"), [(0, 0), (-1, 0), (1, 2), (1, -1)])
def test_a_mask_that_says_nothing_or_too_much_is_an_error(mask: int, value: int) -> None:
    with pytest.raises(InputError):
        Mask(mask, value)


def test_debug_is_accepted_by_name_and_for_that_identity_alone(
    policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge, report: Callable[..., SgxReport]
) -> None:
    debugged = dataclasses.replace(CODE, debug=True)
    judged = forged(verdict(), report=report(flags=SOUND | Attributes.DEBUG))
    assert policy(debugged).judge(judged).identity == debugged
    assert policy(debugged).judge(verdict()).identity == debugged
    with pytest.raises(RefusedError) as caught:
        policy(CODE, dataclasses.replace(SIGNED, mr_signer=b"\x99" * 32, debug=True)).judge(judged)
    assert caught.value.check == "policy.debug"


class TestRoots:
    def test_simulated_evidence_is_refused_by_a_policy_for_hardware(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, vendor: SimulatedVendor
    ) -> None:
        with pytest.raises(RefusedError) as caught:
            policy(roots=("intel",)).judge(verdict())
        assert caught.value.check == "policy.root"
        assert caught.value.found == vendor.root_name
        assert caught.value.rule == "roots: [intel]"

    def test_another_simulated_root_is_refused(self, policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
        with pytest.raises(RefusedError) as caught:
            policy(roots=("simulated:" + "0" * 64, "intel")).judge(verdict())
        assert caught.value.check == "policy.root"

    def test_a_name_alone_makes_no_evidence_genuine(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge
    ) -> None:
        with pytest.raises(RefusedError):
            policy(roots=("intel",)).judge(forged(verdict(), root="intel"))

    def test_a_type_alone_makes_no_evidence_genuine(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge, vendor: SimulatedVendor
    ) -> None:
        with pytest.raises(RefusedError):
            policy(roots=("intel", vendor.root_name)).judge(forged(verdict(), GenuineVerdict))

    def test_genuine_evidence_is_accepted_under_intel_alone(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge
    ) -> None:
        genuine = forged(verdict(), GenuineVerdict, root="intel")
        assert policy(roots=("intel",)).judge(genuine).identity == CODE
        with pytest.raises(RefusedError) as caught:
            policy().judge(genuine)
        assert caught.value.check == "policy.root"


class TestPoliciesThatAreErrors:
    @pytest.mark.parametrize("field", ["roots", "tcb_statuses", "identities"])
    def test_naming_nobody_is_an_error(self, field: str) -> None:
        fields: dict[str, Any] = {"roots": ("intel",), "tcb_statuses": (TcbStatus.UP_TO_DATE,), "identities": (CODE,)}
        with pytest.raises(InputError) as caught:
            Policy(**(fields | {field: ()}))
        assert caught.value.check == f"policy.{field}"
        assert "never anyone" in (caught.value.rule or "")

    @pytest.mark.parametrize(
        "fields",
        [
            {"roots": ("intel", "intel")},
            {"roots": ("Intel",)},
            {"roots": ("simulated:00",)},
            {"roots": ("any",)},
            {"serial": 0},
            {"serial": 2**31},
            {"service": "Digits"},
            {"min_tcb_evaluation_data_number": 0},
            {"platforms": ()},
            {"platforms": (bytes(15),)},
            {"platforms": (bytes(16), bytes(16))},
            {"identities": (GUEST, dataclasses.replace(GUEST, name="other"))},
            {"tcb_statuses": (TcbStatus.UP_TO_DATE, TcbStatus.UP_TO_DATE)},
            {"identities": (CODE, dataclasses.replace(SIGNED, name="code"))},
            {"identities": (CODE, dataclasses.replace(CODE, name="other"))},
        ],
    )
    def test_wrong_and_double_names_are_errors(self, fields: dict[str, Any]) -> None:
        sound: dict[str, Any] = {"roots": ("intel",), "tcb_statuses": (TcbStatus.UP_TO_DATE,), "identities": (CODE,)}
        with pytest.raises(InputError):
            Policy(**(sound | fields))


def test_acceptances_and_verdicts_are_not_made_by_accident(policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
    accepted = policy().judge(verdict())
    with pytest.raises(TypeError):
        Acceptance(object(), CODE, accepted.verdict, "0" * 64, 1)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(accepted, identity=SIGNED)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(accepted.verdict, root="intel")


def test_gramines_protocol_is_off_unless_an_identity_opts_in(policy: Callable[..., Policy]) -> None:
    assert not policy().wire_v1
    opted = dataclasses.replace(CODE, wire_v1=WireV1(secret="model/digits/1", form="raw"))
    assert policy(SIGNED, opted).wire_v1


def test_an_identity_is_added_or_takes_the_place_of_its_namesake(policy: Callable[..., Policy]) -> None:
    assert policy(CODE).with_identity(SIGNED).identities == (CODE, SIGNED)
    newer = dataclasses.replace(CODE, mr_enclave=b"\x33" * 32)
    assert policy(CODE, SIGNED).with_identity(newer).identities == (newer, SIGNED)


def test_the_fingerprint_is_of_the_meaning(policy: Callable[..., Policy]) -> None:
    late = StatusUntil(TcbStatus.OUT_OF_DATE, datetime.date(2027, 3, 31))
    one = policy(CODE, SIGNED, tcb_statuses=(TcbStatus.UP_TO_DATE, late))
    assert one.sha256 == policy(CODE, SIGNED, tcb_statuses=(late, TcbStatus.UP_TO_DATE)).sha256
    assert one.sha256 != policy(SIGNED, CODE, tcb_statuses=one.tcb_statuses).sha256
    assert one.sha256 != policy(dataclasses.replace(CODE, debug=True), SIGNED, tcb_statuses=one.tcb_statuses).sha256
    assert len(bytes.fromhex(one.sha256)) == 32
