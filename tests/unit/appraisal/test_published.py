"""Judging by a published list: exactly what is in it, until its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.published import judge
from ensconce.errors import RefusedError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.pki import SimulatedVendor

CODE, OTHER = bytes(range(32)), bytes(range(1, 33))
NOW = 1_790_000_000


@pytest.fixture
def report(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> SgxReport:
    return sound_report(vendor, mr_enclave=CODE, mr_signer=bytes(32), isv_prod_id=0, isv_svn=0)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as caught:
        act()
    return caught.value.check


def test_exactly_what_is_published(publisher: Any, report: SgxReport) -> None:
    both = publisher.measurements(OTHER, CODE)
    assert judge(both, report, NOW).mr_enclave == CODE.hex()
    assert refusal(lambda: judge(publisher.measurements(OTHER), report, NOW)) == "published.mr_enclave"
    assert refusal(lambda: judge(publisher.measurements(), report, NOW)) == "published.mr_enclave"
    for field, value in (("mr_signer", bytes(31) + b"\x01"), ("isv_prod_id", 1), ("isv_svn", 1)):
        bent = replace(report, **{field: value})
        assert refusal(lambda bent=bent: judge(both, bent, NOW)) == f"published.{field}"


def test_withdrawn(publisher: Any, report: SgxReport) -> None:
    gone = {"mr_enclave": CODE.hex(), "reason": "it reads too far", "withdrawn": "2026-02-01T00:00:00Z"}
    with pytest.raises(RefusedError, match="withdrawn 2026-02-01T00:00:00Z: it reads too far") as caught:
        judge(publisher.measurements(OTHER, withdrawn=[gone]), report, NOW)
    assert caught.value.check == "published.withdrawn"


def test_the_end(publisher: Any, report: SgxReport) -> None:
    list_ = publisher.measurements(CODE, expires="2026-09-21T14:13:20Z")
    judge(list_, report, NOW - 1)
    assert refusal(lambda: judge(list_, report, NOW)) == "published.expired"


def test_a_policy_of_it(publisher: Any) -> None:
    policy = publisher.measurements(CODE, OTHER).to_policy()
    assert (policy.roots, policy.service) == (("intel",), "digits.example.test")
    assert [(each.mr_enclave, each.min_isv_svn, each.debug) for each in policy.identities] == [
        (CODE, 0, False),
        (OTHER, 0, False),
    ]
    assert refusal(lambda: publisher.measurements().to_policy()) == "published.none"
