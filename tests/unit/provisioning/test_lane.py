from __future__ import annotations

import asyncio

import pytest

from ensconce.errors import UnreachableError
from ensconce.provisioning.lane import Lane


class Calls:
    """Calls that end when they are told to."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.running: list[asyncio.Future[int]] = []
        self.left = 0

    async def _call(self) -> int:
        self.running.append(asyncio.get_running_loop().create_future())
        return await self.running[-1]

    def _ended(self) -> None:
        self.left += 1

    async def begin(self, count: int) -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(self.lane.run(self._call, self._ended)) for _ in range(count)]
        await self.settle()
        return tasks

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_while_it_moves_any_number_may_wait() -> None:
    calls = Calls(Lane(turns=2, waiters=1, patience=3600.0))
    tasks = await calls.begin(20)
    assert len(calls.running) == 2
    for number in range(20):
        calls.running[number].set_result(number)
        await calls.settle()
    assert sorted([await task for task in tasks]) == list(range(20))
    assert calls.left == 20
    assert calls.lane.idle


async def test_when_it_does_not_move_a_few_may_wait() -> None:
    calls = Calls(Lane(turns=2, waiters=1, patience=0.02))
    first, second, third, *others = await calls.begin(6)
    done, _ = await asyncio.wait([first, second, third, *others], timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert done <= set(others)
    for task in (*others, *await calls.begin(1)):
        with pytest.raises(UnreachableError) as caught:
            await task
        assert caught.value.check == "provisioning.busy"
    calls.running[0].set_result(0)
    assert await first == 0
    await calls.settle()
    assert len(calls.running) == 3
    calls.running[1].set_result(1)
    calls.running[2].set_result(2)
    assert [await second, await third] == [1, 2]
    await calls.settle()
    assert calls.lane.idle
    assert calls.left == 7


async def test_who_gives_up_leaves_its_turn_to_its_call() -> None:
    calls = Calls(Lane(turns=1, waiters=1, patience=3600.0))
    [gone] = await calls.begin(1)
    gone.cancel()
    [waiting, gone_as_well] = await calls.begin(2)
    gone_as_well.cancel()
    await calls.settle()
    # Its thread is still taken.
    assert len(calls.running) == 1
    assert not calls.lane.idle
    calls.running[0].set_exception(OSError())
    await calls.settle()
    calls.running[1].set_result(5)
    assert await waiting == 5
    await calls.settle()
    assert calls.lane.idle
    assert calls.left == 3


@pytest.mark.parametrize("moment", range(6))
async def test_a_turn_that_comes_as_one_gives_up_is_not_lost(moment: int) -> None:
    calls = Calls(Lane(turns=1, waiters=9, patience=3600.0))
    _, second, third, fourth = await calls.begin(4)
    calls.running[0].set_result(0)
    for _ in range(moment):
        await asyncio.sleep(0)
    second.cancel()
    third.cancel()
    for _ in range(9):
        await calls.settle()
        for call in calls.running[1:]:
            if not call.done():
                call.set_result(3)
    assert fourth.done()
    assert calls.lane.idle
    assert calls.left == 4


async def test_patience_begins_anew_when_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    calls = Calls(Lane(turns=1, waiters=0, patience=1000.0))
    first, second, third = await calls.begin(3)
    ahead = 900.0
    calls.running[0].set_result(0)
    await calls.settle()
    ahead = 1500.0
    await calls.settle()
    assert first.done()
    assert not third.done()
    ahead = 2000.0
    with pytest.raises(UnreachableError, match=r"provisioning\.busy"):
        await third
    calls.running[1].set_result(1)
    assert await second == 1
