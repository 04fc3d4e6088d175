from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.policy import Identity, Policy, TrustDomain
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.verdict import _MINT, GenuineVerdict, TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.report import TdReport

SEPT_VE_DISABLE = 1 << 28
GUEST = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x11" * 48), receives=("secret/license",))
REPORT = TdReport(
    tee_tcb_svn=bytes(16),
    mr_seam=b"\x22" * 48,
    mr_signer_seam=bytes(48),
    seam_attributes=bytes(8),
    td_attributes=SEPT_VE_DISABLE.to_bytes(8, "little"),
    xfam=(0xE702E7).to_bytes(8, "little"),
    mr_td=b"\x11" * 48,
    mr_config_id=bytes(48),
    mr_owner=bytes(48),
    mr_owner_config=bytes(48),
    rtmr0=b"\x30" * 48,
    rtmr1=b"\x31" * 48,
    rtmr2=b"\x32" * 48,
    rtmr3=b"\x33" * 48,
    report_data=bytes(64),
)


def policy(*identities: Identity) -> Policy:
    return Policy(roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=identities or (GUEST,))


@pytest.fixture(scope="session")
def judged(verdict: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """A genuine verdict on a trust domain: only Intel's own quotes of trust domains come by such a one in earnest."""
    sound = verdict()
    fields = {f.name: getattr(sound, f.name) for f in dataclasses.fields(sound)}

    def make(**report: Any) -> Verdict:
        changed = dataclasses.replace(REPORT, **report)
        return GenuineVerdict(mint=_MINT, **(fields | {"tee": "tdx", "root": "intel", "report": changed}))

    return make


def attributes(bits: int) -> dict[str, bytes]:
    return {"td_attributes": bits.to_bytes(8, "little")}


def test_a_named_trust_domain_is_accepted(judged: Callable[..., Verdict]) -> None:
    accepted = policy().judge(judged())
    assert accepted.identity == GUEST
    assert accepted.report == REPORT
    assert accepted.report.measurements()["mr_td"] == "11" * 48


@pytest.mark.parametrize("register", ["rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam"])
def test_registers_are_compared_where_they_are_given(judged: Callable[..., Verdict], register: str) -> None:
    named = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x11" * 48, **{register: getattr(REPORT, register)}))
    assert policy(named).judge(judged())
    assert policy(GUEST).judge(judged(**{register: b"\x99" * 48}))
    with pytest.raises(RefusedError) as caught:
        policy(named).judge(judged(**{register: b"\x99" * 48}))
    assert caught.value.check == f"policy.{register}"
    assert caught.value.found == "99" * 48
    assert caught.value.rule == f"{register}: {getattr(REPORT, register).hex()} (identity 'guest')"


@pytest.mark.parametrize("field", ["mr_config_id", "mr_owner", "mr_owner_config"])
def test_what_the_host_chose_is_zero_or_named(judged: Callable[..., Verdict], field: str) -> None:
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged(**{field: b"\x55" * 48}))
    assert caught.value.check == f"policy.{field}"
    named = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x11" * 48, **{field: b"\x55" * 48}))
    assert policy(named).judge(judged(**{field: b"\x55" * 48}))
    with pytest.raises(RefusedError):
        policy(named).judge(judged())


def test_another_trust_domain_is_refused(judged: Callable[..., Verdict]) -> None:
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged(mr_td=b"\x12" * 48))
    assert caught.value.check == "policy.mr_td"
    assert caught.value.problem == "the policy names no such trust domain"


@pytest.mark.parametrize("bit", [16, 27, 30, 31, 63])
def test_bits_that_let_nobody_in_are_accepted(judged: Callable[..., Verdict], bit: int) -> None:
    assert policy().judge(judged(**attributes(SEPT_VE_DISABLE | 1 << bit)))


@pytest.mark.parametrize("bit", [1, 2, 3, 4, 5, 6, 7, 8, 15, 17, 26, 29, 32, 61, 62])
def test_bits_that_let_somebody_in_or_that_nobody_knows_are_refused(judged: Callable[..., Verdict], bit: int) -> None:
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged(**attributes(SEPT_VE_DISABLE | 1 << bit)))
    assert caught.value.check == "policy.td_attributes"


def test_sept_ve_disable_is_required(judged: Callable[..., Verdict]) -> None:
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged(**attributes(0)))
    assert caught.value.check == "policy.td_attributes"


def test_debug_is_refused_unless_named(judged: Callable[..., Verdict]) -> None:
    debug = judged(**attributes(SEPT_VE_DISABLE | 1))
    with pytest.raises(RefusedError) as caught:
        policy().judge(debug)
    assert caught.value.check == "policy.debug"
    with pytest.raises(RefusedError):
        policy().refuse_debug(debug.report)
    assert policy(dataclasses.replace(GUEST, debug=True)).judge(debug)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"mr_signer_seam": b"\x01" * 48}, "policy.mr_signer_seam"),
        ({"seam_attributes": b"\x01" + bytes(7)}, "policy.mr_signer_seam"),
        ({"tee_tcb_svn2": bytes(16), "mr_service_td": b"\x01" * 48}, "policy.mr_service_td"),
    ],
)
def test_another_module_and_a_service_td_are_refused(
    judged: Callable[..., Verdict], changes: dict[str, bytes], check: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        policy().judge(judged(**changes))
    assert caught.value.check == check


@pytest.mark.parametrize(
    ("mask", "accepted"),
    [
        ({"td_attributes": Mask(2**64 - 1, SEPT_VE_DISABLE)}, True),
        ({"td_attributes": Mask(1 << 63, 1 << 63)}, False),
        ({"xfam": Mask(0xFF, 0xE7)}, True),
        ({"xfam": Mask(0xFF, 0x07)}, False),
    ],
)
def test_masks_narrow(judged: Callable[..., Verdict], mask: dict[str, Mask], accepted: bool) -> None:
    named = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x11" * 48, **mask))
    if accepted:
        assert policy(named).judge(judged())
        return
    with pytest.raises(RefusedError) as caught:
        policy(named).judge(judged())
    assert caught.value.check == f"policy.{next(iter(mask))}"


def test_enclaves_and_trust_domains_do_not_stand_in_for_each_other(
    judged: Callable[..., Verdict], verdict: Callable[..., Verdict]
) -> None:
    enclave = Identity(name="enclave", mr_enclave=b"\x11" * 32)
    with pytest.raises(RefusedError) as caught:
        policy(enclave).judge(judged())
    assert (caught.value.check, caught.value.found) == ("policy.tee", "tdx")
    assert policy(enclave, GUEST).judge(judged()).identity == GUEST
    of_enclave = verdict()
    both = dataclasses.replace(policy(GUEST, enclave), roots=(of_enclave.root,))
    assert both.judge(of_enclave).identity == enclave
    with pytest.raises(RefusedError) as caught:
        dataclasses.replace(policy(GUEST), roots=(of_enclave.root,)).judge(of_enclave)
    assert (caught.value.check, caught.value.found) == ("policy.tee", "sgx")
    # The kind that the verdict says and the report that it carries must agree.
    mixed = {f.name: getattr(of_enclave, f.name) for f in dataclasses.fields(of_enclave)}
    with pytest.raises(RefusedError) as caught:
        policy(GUEST, enclave).judge(GenuineVerdict(mint=_MINT, **(mixed | {"tee": "tdx", "root": "intel"})))
    assert caught.value.check == "policy.tee"


@pytest.mark.parametrize(
    "fields", [{"mr_td": bytes(32)}, {"rtmr3": bytes(47)}, {"mr_owner": b""}, {"xfam": Mask(1 << 64, 0)}]
)
def test_values_out_of_bounds_are_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TrustDomain(**({"mr_td": bytes(48)} | fields))
