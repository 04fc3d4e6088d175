"""Sends the requests of a plan on one event loop, whose clock is the only one here."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Final

from ensconce.bench.schedule import Plan, arrivals
from ensconce.bench.tally import AnswerError, Tally

__all__ = ["Effort", "Outcome", "Send", "processors", "run", "used"]

Send = Callable[[int], Awaitable[str | None]]
"""Sends the request of this number; gives the id of the replica that proved to have answered, or raises AnswerError."""

_TELL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Effort:
    """Processor time, in seconds: of the whole process, and of the thread with the event loop."""

    process: float
    loop: float

    def __sub__(self, other: Effort) -> Effort:
        return Effort(self.process - other.process, self.loop - other.loop)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        tally: everything that was counted.
        seconds: from the first request to the end of the last.
        effort: what the generator itself took.
        interrupted: whether it was cancelled; requests under way then are neither answered nor failed.
    """

    tally: Tally
    seconds: float
    effort: Effort
    interrupted: bool = False


def used() -> Effort:
    """The processor time used so far."""
    return Effort(time.process_time(), time.thread_time())


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


async def run(
    send: Send,
    plan: Plan,
    chance: random.Random,
    *,
    tell: Callable[[Tally, float], object] = lambda _tally, _seconds: None,
    effort: Callable[[], Effort] = used,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Outcome:
    """Send what the plan says; cancelled after warm-up, tell what was counted until then.

    Args:
        send: how; numbers count up from 0, warm-up first.
        plan: what.
        chance: for arrivals.
        tell: called every now and then with the counts and the seconds so far.
        effort: tells the processor time used.
        sleep: lets seconds pass until the next arrival; for one task at a time.

    Raises:
        AnswerError: during warm-up.
    """
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    await _warm_up(send, plan, numbers)
    tally = Tally()
    before, begin = effort(), loop.time()
    teller = asyncio.create_task(_tell(tally, begin, tell))
    sender = _Sender(send, tally, numbers, begin)
    interrupted = False
    try:
        await (_closed(sender, plan) if plan.rate is None else _open(sender, plan, chance, sleep))
    except asyncio.CancelledError:
        interrupted = True
    finally:
        teller.cancel()
    seconds, after = loop.time() - begin, effort()
    tell(tally, seconds)
    return Outcome(tally, seconds, after - before, interrupted)


class _Sender:
    def __init__(self, send: Send, tally: Tally, numbers: itertools.count[int], begin: float) -> None:
        self._send, self._tally, self._numbers = send, tally, numbers
        self._clock = asyncio.get_running_loop().time
        self.begin = begin

    def now(self) -> float:
        return self._clock()

    async def one(self, due: float | None = None) -> None:
        """One request, counted from when it was due, or from now."""
        sent = self._clock()
        due = sent if due is None else due
        self._tally.send(due, sent)
        try:
            replica_id = await self._send(next(self._numbers))
        except AnswerError as failure:
            self._tally.fail(failure, self._clock(), self.begin)
        else:
            self._tally.answer(due, sent, self._clock(), self.begin, replica_id)


async def _warm_up(send: Send, plan: Plan, numbers: itertools.count[int]) -> None:
    left = iter(range(plan.warm_up))

    async def caller() -> None:
        for _ in left:
            await send(next(numbers))

    await _together(caller() for _ in range(min(plan.concurrency, plan.warm_up)))


async def _closed(sender: _Sender, plan: Plan) -> None:
    left = itertools.count() if plan.requests is None else iter(range(plan.requests))
    end = float("inf") if plan.duration is None else sender.begin + plan.duration

    async def caller() -> None:
        for _ in left:
            if sender.now() >= end:
                return
            await sender.one()

    callers = plan.concurrency if plan.requests is None else min(plan.concurrency, plan.requests)
    await _together(caller() for _ in range(callers))


async def _open(sender: _Sender, plan: Plan, chance: random.Random, sleep: Callable[[float], Awaitable[None]]) -> None:
    under_way: set[asyncio.Task[None]] = set()
    defects: list[BaseException] = []
    free = asyncio.Semaphore(plan.concurrency)

    def ended(task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        free.release()
        if not task.cancelled() and (defect := task.exception()) is not None:
            defects.append(defect)

    try:
        for due in arrivals(plan, chance):
            at = sender.begin + due
            if (wait := at - sender.now()) > 0:
                await sleep(wait)
            # A server that is behind keeps what is due waiting here: its latency counts all the same.
            await free.acquire()
            if defects:
                break
            task = asyncio.create_task(sender.one(at))
            under_way.add(task)
            task.add_done_callback(ended)
        await asyncio.gather(*under_way)
        if defects:
            raise defects[0]
        if plan.duration is not None:  # or a throughput would count the pause after the last request for nothing
            await asyncio.sleep(max(sender.begin + plan.duration - sender.now(), 0))
    finally:
        for task in under_way:
            task.cancel()


async def _together(callers: Iterable[Coroutine[None, None, None]]) -> None:
    """All of them; the first one that raises ends the others, and its exception is raised as it is."""
    tasks = [asyncio.create_task(each) for each in callers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(tally: Tally, begin: float, tell: Callable[[Tally, float], object]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TELL_S)
        tell(tally, loop.time() - begin)
