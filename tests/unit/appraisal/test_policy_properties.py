"""What holds of every policy: it reads as it was written, its fingerprint is of its meaning, and wider is wider."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce.appraisal.policy import (
    Advisories,
    AttributeMasks,
    Identity,
    Owners,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_diff import compare
from ensconce.appraisal.policy_file import parse_policy
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.verdict import _MINT, GenuineVerdict, TcbStatus, Verdict
from ensconce.errors import RefusedError
from ensconce.evidence.report import Attributes, SgxReport

names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
u16 = st.integers(0, 0xFFFF)
hash32, hash48 = st.binary(min_size=32, max_size=32), st.binary(min_size=48, max_size=48)
receives = st.lists(st.from_regex(r"(model|secret)/[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True), unique=True, max_size=3)
numbers = st.none() | st.integers(1, 2**31 - 1)


def masks(bits: int) -> st.SearchStrategy[Mask]:
    return st.integers(1, 2**bits - 1).flatmap(
        lambda mask: st.integers(0, 2**bits - 1).map(lambda value: Mask(mask, value & mask))
    )


attributes = st.none() | st.builds(
    AttributeMasks, flags=masks(64), xfrm=st.none() | masks(64), misc_select=st.none() | masks(32)
)
by_code = st.builds(
    Identity,
    name=names,
    mr_enclave=hash32,
    mr_signer=st.none() | hash32,
    isv_prod_id=st.none() | u16,
    min_isv_svn=st.none() | u16,
    attributes=attributes,
    debug=st.booleans(),
    receives=receives.map(tuple),
)
by_signer = st.builds(
    Identity,
    name=names,
    mr_signer=hash32,
    isv_prod_id=u16,
    min_isv_svn=u16,
    attributes=attributes,
    debug=st.booleans(),
    receives=st.just(("model/digits", "secret/license")),
    wire_v1=st.none()
    | st.builds(
        WireV1, secret=st.sampled_from(["model/digits/12", "secret/license"]), form=st.sampled_from(["raw", "hex"])
    ),
)
guests = st.builds(
    Identity,
    name=names,
    tdx=st.builds(
        TrustDomain,
        mr_td=hash48,
        rtmr0=st.none() | hash48,
        mr_seam=st.none() | hash48,
        mr_config_id=st.none() | hash48,
        td_attributes=st.none() | masks(64),
        xfam=st.none() | masks(64),
    ),
    receives=receives.map(tuple),
)
exceptions = st.builds(
    StatusUntil,
    st.sampled_from([status for status in TcbStatus if status is not TcbStatus.UP_TO_DATE]),
    st.dates(datetime.date(2020, 1, 1)),
)
advisory_ids = st.lists(st.from_regex(r"INTEL-SA-[0-9]{5}", fullmatch=True), unique=True, min_size=1, max_size=4)
keys = st.lists(
    hash32.map(lambda b: key_name(Ed25519PrivateKey.from_private_bytes(b).public_key())),
    unique=True,
    min_size=1,
    max_size=4,
)
policies = st.builds(
    Policy,
    roots=st.lists(
        st.just("intel") | hash32.map(lambda b: f"simulated:{b.hex()}"), unique=True, min_size=1, max_size=3
    ).map(tuple),
    tcb_statuses=st.lists(
        st.just(TcbStatus.UP_TO_DATE) | exceptions,
        min_size=1,
        unique_by=lambda each: each if isinstance(each, TcbStatus) else each.status,
    ).map(tuple),
    identities=st.lists(
        by_code | by_signer | guests,
        min_size=1,
        max_size=4,
        unique_by=(lambda i: i.name, lambda i: i.mr_enclave or i.tdx or i.name),
    ).map(tuple),
    serial=st.integers(1, 2**31 - 1),
    service=st.none() | st.just("digits.example.test"),
    owners=st.none() | keys.map(lambda keys: Owners(required=len(keys), keys=tuple(keys))),
    advisories=st.none()
    | advisory_ids.map(lambda ids: Advisories(accept=tuple(ids[1:]), refuse=tuple(ids[:1])))
    | advisory_ids.map(lambda ids: Advisories(refuse=tuple(ids)))
    | st.just(Advisories(accept=())),
    min_tcb_evaluation_data_number=numbers,
    platforms=st.none() | st.lists(st.binary(min_size=16, max_size=16), unique=True, min_size=1, max_size=3).map(tuple),
)


@given(policies)
def test_what_is_dumped_reads_as_the_same_policy(policy: Policy) -> None:
    again = parse_policy(dump_policy(policy).encode(), "policy.yaml")
    assert again.sha256 == policy.sha256
    assert again.identities == policy.identities
    assert dump_policy(again) == dump_policy(policy)


@given(policies, st.randoms(use_true_random=False), st.integers(0, 8))
def test_the_fingerprint_does_not_depend_on_layout(policy: Policy, random: Random, indent: int) -> None:
    def shuffled(value: Any, path: str = "") -> Any:
        if isinstance(value, dict):
            members = [(name, shuffled(member, name)) for name, member in value.items()]
            random.shuffle(members)
            return dict(members)
        if isinstance(value, list):
            items = [shuffled(item) for item in value]
            if path not in ("identities", "receives"):
                random.shuffle(items)
            return items
        return value.upper() if path.startswith(("mr_", "rtmr")) else value

    # JSON is YAML; its strings are in quotes, and its numbers are not.
    text = (
        "# a comment\n"
        + json.dumps(shuffled(policy.to_json_object()), indent=indent or None, ensure_ascii=False)
        + "  # another\n"
    )
    assert parse_policy(text.encode(), "policy.yaml").sha256 == policy.sha256


# Verdicts and policies of a few values each, so that many a verdict is accepted.
DAYS = [datetime.date(2026, 9, day) for day in (20, 21, 22)]
small_identities = st.builds(
    Identity,
    name=st.sampled_from("abc"),
    mr_enclave=st.sampled_from([b"\x11" * 32, b"\x12" * 32]),
    min_isv_svn=st.none() | st.integers(2, 4),
    attributes=st.none() | st.just(AttributeMasks(xfrm=Mask(1, 1))),
    debug=st.booleans(),
)
small_policies = st.builds(
    Policy,
    roots=st.just(("intel",)),
    tcb_statuses=st.just((TcbStatus.UP_TO_DATE,))
    | st.sampled_from(DAYS).map(lambda day: (TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.OUT_OF_DATE, day))),
    identities=st.lists(
        small_identities, min_size=1, max_size=2, unique_by=(lambda i: i.name, lambda i: i.mr_enclave)
    ).map(tuple),
    advisories=st.sampled_from([None, Advisories(accept=()), Advisories(refuse=("INTEL-SA-00828",))]),
    min_tcb_evaluation_data_number=st.none() | st.integers(16, 18),
    platforms=st.sampled_from([None, (bytes(16),), (bytes(16), b"\x01" * 16)]),
)
changes = st.fixed_dictionaries(
    {
        "status": st.sampled_from([TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE]),
        "advisory_ids": st.sampled_from([(), ("INTEL-SA-00615",), ("INTEL-SA-00828",)]),
        "ppid": st.sampled_from(["00" * 16, "01" * 16]),
        "tcb_evaluation_data_number": st.integers(16, 18),
        "qe_evaluation_data_number": st.integers(16, 18),
    }
)
reports = st.fixed_dictionaries(
    {
        "mr_enclave": st.sampled_from([b"\x11" * 32, b"\x12" * 32]),
        "isv_svn": st.integers(1, 4),
        "attributes": st.sampled_from([Attributes(5, 3), Attributes(7, 3), Attributes(5, 2)]),
    }
)


def wider(policy: Policy) -> list[Policy]:
    """Policies that accept all that this one accepts, each for one more reason."""
    first, *rest = policy.identities
    statuses = tuple(each for each in policy.tcb_statuses if isinstance(each, TcbStatus))
    late = StatusUntil(TcbStatus.OUT_OF_DATE, datetime.date(2100, 1, 1))
    machines = policy.platforms
    return [
        dataclasses.replace(policy, **fields)
        for fields in (
            {"roots": (*policy.roots, "simulated:" + "0" * 64)},
            {"tcb_statuses": (*statuses, late)},
            {"advisories": None},
            {"min_tcb_evaluation_data_number": None},
            {"platforms": None if machines is None else (*machines, b"\x02" * 16)},
            {"platforms": None},
            {"identities": (*policy.identities, Identity(name="z", mr_enclave=b"\x99" * 32))},
            {"identities": (Identity(name="z", mr_enclave=b"\x99" * 32), *policy.identities)},
            {"identities": (dataclasses.replace(first, debug=True), *rest)},
            {"identities": (dataclasses.replace(first, min_isv_svn=None), *rest)},
            {"identities": (dataclasses.replace(first, attributes=None), *rest)},
            {"identities": tuple(reversed(policy.identities))},
        )
    ]


@pytest.fixture(scope="session")
def sound_verdict(verdict: Callable[..., Verdict]) -> Verdict:
    return verdict()


@given(policy=small_policies, report=reports, fields=changes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_accepted_is_accepted_by_any_wider_policy(
    sound_verdict: Verdict, policy: Policy, report: dict[str, Any], fields: dict[str, Any]
) -> None:
    judged = changed(sound_verdict, report, fields)
    if accepts(policy, judged):
        assert all(accepts(each, judged) for each in wider(policy))


@given(old=small_policies, new=small_policies, report=reports, fields=changes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_difference_says_what_is_accepted_now_and_what_is_not_any_more(
    sound_verdict: Verdict, old: Policy, new: Policy, report: dict[str, Any], fields: dict[str, Any]
) -> None:
    judged = changed(sound_verdict, report, fields)
    effects = {change.effect for change in compare(old, new)}
    if accepts(new, judged) and not accepts(old, judged):
        assert "accepts" in effects
    if accepts(old, judged) and not accepts(new, judged):
        assert "refuses" in effects


@given(policy=small_policies, report=reports, fields=changes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_who_is_accepted_is_who_it_claimed_to_be(
    sound_verdict: Verdict, policy: Policy, report: dict[str, Any], fields: dict[str, Any]
) -> None:
    judged = changed(sound_verdict, report, fields)
    claimed = policy.claimed(judged.tee, judged.report)
    if claimed is None:
        assert not accepts(policy, judged)
    elif accepts(policy, judged):
        assert policy.judge(judged).identity is claimed


def changed(sound: Verdict, report: dict[str, Any], fields: dict[str, Any]) -> Verdict:
    values = {f.name: getattr(sound, f.name) for f in dataclasses.fields(sound)}
    assert isinstance(sound.report, SgxReport)
    body = dataclasses.replace(sound.report, **report)
    return GenuineVerdict(mint=_MINT, **(values | {"root": "intel", "report": body} | fields))


def accepts(policy: Policy, verdict: Verdict) -> bool:
    try:
        return policy.judge(verdict).verdict is verdict
    except RefusedError:
        return False
