"""What a policy says of platforms, held against verdicts."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Advisories, Policy, StatusUntil
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError

MeasuredBy = Callable[..., Verdict]
Forge = Callable[..., Verdict]


class TestStatuses:
    DAY = datetime.date(2026, 9, 21)  # the day of NOW, 1790000000, 13:33:20 UTC
    LAST_SECOND = 1_790_035_199

    def test_an_exception_is_accepted_to_the_end_of_its_last_day(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge
    ) -> None:
        lax = policy(tcb_statuses=(TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.SW_HARDENING_NEEDED, self.DAY)))
        judged = verdict(tcb_status="SWHardeningNeeded")
        assert lax.judge(judged).identity.name == "code"
        # Whoever goes on by a yes, such as a connection, has to ask again when the exception ends.
        assert lax.judge(judged).valid_until == self.LAST_SECOND + 1 < judged.valid_until
        assert lax.judge(forged(judged, at=self.LAST_SECOND)).identity.name == "code"
        with pytest.raises(RefusedError) as caught:
            lax.judge(forged(judged, at=self.LAST_SECOND + 1))
        assert caught.value.check == "policy.tcb_status"
        assert "on 2026-09-22" in (caught.value.found or "")
        assert caught.value.rule == "tcb_statuses: {status: SWHardeningNeeded, until: 2026-09-21}"

    def test_the_policy_goes_by_the_clock_of_the_verification(
        self,
        policy: Callable[..., Policy],
        quote: Callable[..., bytes],
        collateral: Callable[..., Collateral],
        source: Any,
    ) -> None:
        lax = policy(tcb_statuses=(StatusUntil(TcbStatus.OUT_OF_DATE, self.DAY),))
        papers = collateral(tcb_status="OutOfDate", advisory_ids=("SIMULATED-SA-00001",))
        appraisers = [
            Appraiser(lax, replace(source, collateral=papers), lambda at=at: at)
            for at in (self.LAST_SECOND, self.LAST_SECOND + 1)
        ]
        assert appraisers[0].appraise(quote()).verdict.at == self.LAST_SECOND
        with pytest.raises(RefusedError) as caught:
            appraisers[1].appraise(quote())
        assert caught.value.check == "policy.tcb_status"

    def test_an_exception_is_for_one_status(self, policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
        lax = policy(tcb_statuses=(TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.SW_HARDENING_NEEDED, self.DAY)))
        with pytest.raises(RefusedError) as caught:
            lax.judge(verdict(tcb_status="OutOfDate"))
        assert caught.value.rule == "tcb_statuses: [UpToDate, SWHardeningNeeded until 2026-09-21]"

    def test_an_exception_without_an_end_is_an_error(self, policy: Callable[..., Policy]) -> None:
        for status in TcbStatus:
            if status is not TcbStatus.UP_TO_DATE:
                with pytest.raises(InputError) as caught:
                    policy(tcb_statuses=(status,))
                assert caught.value.check == "policy.tcb_statuses"
        with pytest.raises(InputError):
            StatusUntil(TcbStatus.UP_TO_DATE, self.DAY)

    def test_each_status_is_refused_unless_named(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge
    ) -> None:
        judged = verdict()
        for status in TcbStatus:
            one = forged(judged, status=status)
            if status is TcbStatus.UP_TO_DATE:
                assert policy().judge(one)
                continue
            with pytest.raises(RefusedError) as caught:
                policy().judge(one)
            assert caught.value.check == "policy.tcb_status"
            assert policy(tcb_statuses=(StatusUntil(status, self.DAY),)).judge(one)


class TestAdvisories:
    HAS = "SIMULATED-SA-00001"

    @pytest.mark.parametrize(
        ("advisories", "accepted"),
        [
            (None, True),
            (Advisories(accept=(HAS,)), True),
            (Advisories(accept=()), False),
            (Advisories(accept=("INTEL-SA-00615",)), False),
            (Advisories(refuse=(HAS,)), False),
            (Advisories(refuse=("INTEL-SA-00615",)), True),
            (Advisories(accept=(HAS,), refuse=("INTEL-SA-00615",)), True),
        ],
    )
    def test_what_is_accepted_and_what_refuses(
        self,
        policy: Callable[..., Policy],
        verdict: MeasuredBy,
        forged: Forge,
        advisories: Advisories | None,
        accepted: bool,
    ) -> None:
        judged = forged(verdict(), advisory_ids=(self.HAS,))
        strict = policy(advisories=advisories)
        if accepted:
            assert strict.judge(judged)
            return
        with pytest.raises(RefusedError) as caught:
            strict.judge(judged)
        assert caught.value.check == "policy.advisories"
        assert caught.value.found == self.HAS
        assert (caught.value.rule or "").startswith("advisories: {")

    def test_a_platform_without_any_is_always_accepted(
        self, policy: Callable[..., Policy], verdict: MeasuredBy
    ) -> None:
        assert policy(advisories=Advisories(accept=(), refuse=(self.HAS,))).judge(verdict())

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"refuse": ("INTEL-SA-615",)},
            {"refuse": ("intel-sa-00615",)},
            {"accept": ("INTEL-SA-00615 ",)},
            {"accept": ("INTEL-SA-00615",), "refuse": ("INTEL-SA-00615",)},
            {"accept": ("INTEL-SA-00615", "INTEL-SA-00615")},
        ],
    )
    def test_what_says_nothing_or_two_things_is_an_error(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            Advisories(**fields)


class TestPlatforms:
    @pytest.mark.parametrize(
        "changes", [{"tcb_evaluation_data_number": 16}, {"qe_evaluation_data_number": 16}], ids=["tcb", "qe"]
    )
    def test_both_evaluation_numbers_are_held_to_the_floor(
        self, policy: Callable[..., Policy], verdict: MeasuredBy, forged: Forge, changes: dict[str, Any]
    ) -> None:
        numbers = {"tcb_evaluation_data_number": 17, "qe_evaluation_data_number": 17}
        strict = policy(min_tcb_evaluation_data_number=17)
        assert strict.judge(forged(verdict(), **numbers))
        with pytest.raises(RefusedError) as caught:
            strict.judge(forged(verdict(), **(numbers | changes)))
        assert caught.value.check == "policy.min_tcb_evaluation_data_number"
        assert "16" in (caught.value.found or "")
        assert caught.value.rule == "min_tcb_evaluation_data_number: 17"

    def test_only_the_machines_that_are_named(self, policy: Callable[..., Policy], verdict: MeasuredBy) -> None:
        judged = verdict()
        assert policy(platforms=(bytes(16), bytes.fromhex(judged.ppid))).judge(judged)
        with pytest.raises(RefusedError) as caught:
            policy(platforms=(bytes(16),)).judge(judged)
        assert caught.value.check == "policy.platforms"
        assert caught.value.found == judged.ppid
        assert caught.value.rule == f"platforms: [{'00' * 16}]"
