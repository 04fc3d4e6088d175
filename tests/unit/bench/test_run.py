"""Loads against a simulated server, in simulated time."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.bench.run import Effort, Outcome, run
from ensconce.bench.schedule import Plan, arrivals
from ensconce.bench.tally import AnswerError
from ensconce.errors import InputError

Simulate = Callable[[Any], Any]
MS = 1_000_000


class Server:
    """Answers each request after 1 ms; while it stalls, only after the stall."""

    def __init__(self, stall: tuple[float, float] = (0, 0), fails: int = 0) -> None:
        self.stall, self.fails = stall, fails
        self.begin: float | None = None
        self.under_way = self.most = 0
        self.numbers: list[int] = []

    async def send(self, number: int) -> str | None:
        loop = asyncio.get_running_loop()
        self.begin = loop.time() if self.begin is None else self.begin
        self.numbers.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        since = loop.time() - self.begin
        begin, end = self.stall
        await asyncio.sleep(end - since + 0.001 if begin <= since < end else 0.001)
        self.under_way -= 1
        if self.fails and number % self.fails == 0:
            raise AnswerError("http 503", "too much")
        return "abc"


def measured(simulate: Simulate, server: Server, **plan: Any) -> Outcome:
    found: Outcome = simulate(run(server.send, Plan(**plan), random.Random(7)))
    return found


def test_a_stall_shows_from_when_requests_were_due_and_not_from_when_they_were_sent(simulate: Simulate) -> None:
    # 10 s at 100/s, of which the server stalls for 1 s; it is asked one thing at a time.
    found = measured(simulate, Server((2, 3)), concurrency=1, rate=100, arrivals="constant", duration=10)
    tally = found.tally
    assert tally.answered == 1000
    assert tally.service.percentile(99.8) <= 1.01 * MS  # one request saw it
    assert tally.service.largest == pytest.approx(1001 * MS, rel=1e-3)
    # 100 were due meanwhile, and some 11 more until all were caught up on: a tenth waited, evenly up to a second.
    assert tally.latency.percentile(88) <= 1.01 * MS
    assert tally.latency.percentile(95) == pytest.approx(500 * MS, rel=0.15)
    assert tally.latency.percentile(99) == pytest.approx(900 * MS, rel=0.05)
    assert tally.lateness.percentile(99) > 800 * MS
    assert found.seconds == pytest.approx(10, abs=0.01)


def test_a_closed_loop_hides_a_stall_until_it_is_filled_in(simulate: Simulate) -> None:
    tally = measured(simulate, Server((2, 3)), concurrency=1, duration=10).tally
    assert tally.answered == pytest.approx(9000, rel=0.01)
    assert tally.latency.percentile(99.9) <= 1.01 * MS
    filled = tally.latency.corrected(tally.latency.percentile(50))
    assert filled.percentile(99) == pytest.approx(900 * MS, rel=0.02)
    assert filled.count == pytest.approx(10_000, rel=0.01)


def test_percentiles_are_those_of_a_queue_with_one_server(simulate: Simulate) -> None:
    # M/M/1: arrivals at 500/s and service of 1 ms on average, both at random, make latencies exponential, 2 ms on
    # average (Kleinrock, Queueing Systems I, 3.2), in as many as may be under way or in one: then the queue is ours.
    for under_way in (4096, 1):
        free, chance = asyncio.Lock(), random.Random(8)

        async def send(_number: int, free: asyncio.Lock = free, chance: random.Random = chance) -> None:
            async with free:
                await asyncio.sleep(chance.expovariate(1000))

        plan = Plan(rate=500, requests=5_000, concurrency=under_way)
        tally = simulate(run(send, plan, random.Random(7))).tally
        for percent in (50, 90, 99):
            expected = -math.log(1 - percent / 100) * 2 * MS
            assert tally.latency.percentile(percent) == pytest.approx(expected, rel=0.1), (under_way, percent)
    # Of one request under way only its service shows, and that is what uncorrected says.
    assert tally.service.percentile(50) == pytest.approx(math.log(2) * MS, rel=0.05)


def test_a_rate_that_is_too_high_counts_all_that_piles_up(simulate: Simulate) -> None:
    # Due each half millisecond, answered each whole one: the last of 1,000 has waited for 500 others.
    tally = measured(simulate, Server(), concurrency=1, rate=2000, arrivals="constant", requests=1000).tally
    assert tally.answered == 1000
    for percent in (10, 50, 90, 100):
        assert tally.latency.percentile(percent) == pytest.approx((percent * 5 + 1) * MS, rel=0.01)
    assert tally.service.largest <= 1.01 * MS


def test_callers_wait_for_their_answers(simulate: Simulate) -> None:
    server = Server()
    found = measured(simulate, server, concurrency=4, requests=400)
    assert (server.most, found.tally.sent, found.tally.answered) == (4, 400, 400)
    assert found.seconds == pytest.approx(0.1, rel=0.01)
    assert sorted(server.numbers) == list(range(400))
    assert found.tally.replicas == {"abc": 400}


def test_an_open_loop_does_not_wait_but_is_bounded(simulate: Simulate) -> None:
    server = Server((0, 1))
    tally = measured(simulate, server, concurrency=50, rate=1000, duration=0.2).tally
    assert server.most == 50
    assert tally.answered == tally.sent == pytest.approx(200, rel=0.3)


def test_what_fails_is_counted_by_kind_and_has_no_latency(simulate: Simulate) -> None:
    told: list[int] = []
    plan = Plan(concurrency=2, requests=2000)
    found = simulate(
        run(Server(fails=10).send, plan, random.Random(7), tell=lambda tally, _: told.append(tally.answered))
    )
    tally = found.tally
    assert (tally.failures, tally.failed, tally.answered) == ({"http 503": 200}, 200, 1800)
    assert tally.examples == {"http 503": "too much"}
    assert tally.latency.count == 1800
    assert sum(tally.timeline.failed) == 200
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == 1800


def test_warm_up_is_not_counted_and_its_failure_is_told(simulate: Simulate) -> None:
    server = Server()
    found = measured(simulate, server, concurrency=3, requests=5, warm_up=20)
    assert (found.tally.sent, len(server.numbers)) == (5, 25)
    with pytest.raises(AnswerError):
        measured(simulate, Server(fails=7), concurrency=3, requests=5, warm_up=20)


@pytest.mark.parametrize("rate", [None, 100.0])
def test_cancelled_it_tells_what_was_counted_until_then(simulate: Simulate, rate: float | None) -> None:
    server = Server((1, 2))

    async def interrupted() -> Outcome:
        measuring = asyncio.create_task(run(server.send, Plan(concurrency=2, rate=rate), random.Random(7)))
        await asyncio.sleep(1.5)
        measuring.cancel()
        return await measuring

    found: Outcome = simulate(interrupted())
    tally = found.tally
    assert found.interrupted
    assert found.seconds == pytest.approx(1.5, abs=0.01)
    assert (tally.sent - tally.answered, tally.failed) == (2, 0)
    assert tally.answered == tally.latency.count > 50


def test_cancelled_while_it_warms_up_it_has_nothing_to_tell(simulate: Simulate) -> None:
    async def interrupted() -> None:
        measuring = asyncio.create_task(run(Server((0, 2)).send, Plan(warm_up=1), random.Random(7)))
        await asyncio.sleep(1)
        measuring.cancel()
        await measuring

    with pytest.raises(asyncio.CancelledError):
        simulate(interrupted())


def test_a_defect_ends_it(simulate: Simulate) -> None:
    async def broken(number: int) -> None:
        if number == 5:
            raise ZeroDivisionError
        await asyncio.sleep(1)

    for plan in (Plan(concurrency=3, requests=50), Plan(concurrency=3, requests=50, rate=100)):
        with pytest.raises(ZeroDivisionError):
            simulate(run(broken, plan, random.Random(7)))


def test_its_own_processor_time_is_that_of_the_measurement(simulate: Simulate) -> None:
    times = iter([Effort(5, 3), Effort(9, 4)])
    found = simulate(run(Server().send, Plan(requests=3, warm_up=3), random.Random(7), effort=lambda: next(times)))
    assert found.effort == Effort(4, 1)


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    due = list(arrivals(Plan(rate=100, duration=100), random.Random(7)))
    assert len(due) == pytest.approx(10_000, rel=0.03)
    assert due == sorted(due)
    assert due[-1] < 100
    gaps = sorted(after - before for before, after in itertools.pairwise(due))
    assert gaps[len(gaps) // 2] == pytest.approx(0.00693, rel=0.05)  # ln 2 / rate


def test_constant_arrivals_do_not_drift() -> None:
    due = list(arrivals(Plan(rate=3, arrivals="constant", requests=3001), random.Random(7)))
    assert due[3000] == 1000.0


@pytest.mark.parametrize(
    ("check", "plan"),
    [
        ("bench.rate", {"requests": 1, "rate": 0.0}),
        ("bench.rate", {"requests": 1, "rate": float("nan")}),
        ("bench.duration", {"duration": 0.0}),
        ("bench.concurrency", {"requests": 1, "concurrency": 10_000}),
        ("bench.warm-up", {"requests": 1, "warm_up": -1}),
    ],
)
def test_plans_that_cannot_be(check: str, plan: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Plan(**plan)
    assert caught.value.check == check
