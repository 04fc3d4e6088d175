from __future__ import annotations

import asyncio
import math

import pytest

from ensconce.provisioning.places import Places


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Guest:
    def __init__(self, address: str) -> None:
        self.address = address
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


async def enter(places: Places, *addresses: str) -> list[Guest]:
    guests = [Guest(address) for address in addresses]
    for guest in guests:
        await places.enter(guest)
    return guests


async def test_the_oldest_of_the_heaviest_address_gives_way() -> None:
    clock = Clock()
    places = Places(4, grace=1.0, clock=clock)
    [first] = await enter(places, "a")
    clock.now = 1.0
    heavy = await enter(places, "b", "b", "b")
    clock.now = 5.0
    await enter(places, "c")
    # Not the oldest of all: one address with many connections does not crowd out another.
    assert [guest.evicted for guest in (first, *heavy)] == [False, True, False, False]
    await enter(places, "d")
    assert [guest.evicted for guest in (first, *heavy)] == [False, True, True, False]
    # Now everybody has one, and the oldest goes.
    await enter(places, "e")
    assert first.evicted
    assert len(places) == 4


async def test_nobody_gives_way_before_the_grace_is_over() -> None:
    clock = Clock()
    places = Places(2, grace=3600.0, clock=clock)
    guests = await enter(places, "a", "b")
    newcomer = asyncio.create_task(enter(places, "c"))
    await asyncio.sleep(0)
    assert not newcomer.done()
    places.leave(guests[1])
    await asyncio.wait_for(newcomer, 30)
    assert not any(guest.evicted for guest in guests)
    assert len(places) == 2


async def test_a_newcomer_waits_out_the_grace() -> None:
    places = Places(1, grace=0.05)
    [old] = await enter(places, "a")
    await asyncio.wait_for(enter(places, "b"), 30)
    assert old.evicted


async def test_places_without_an_end_of_grace_are_never_taken_away() -> None:
    places = Places(1, grace=math.inf)
    [old] = await enter(places, "a")
    waiting = [asyncio.create_task(enter(places, str(number))) for number in range(3)]
    await asyncio.sleep(0)
    places.leave(old)
    await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(9):
        await asyncio.sleep(0)
    done, pending = await asyncio.wait(waiting, timeout=0)
    assert (len(done), len(pending)) == (1, 2)
    assert not old.evicted
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    # Those who gave up do not keep the place from others.
    [[now]] = [task.result() for task in done]
    places.leave(now)
    await asyncio.wait_for(enter(places, "z"), 30)


async def test_of_those_who_wait_the_lightest_address_is_next() -> None:
    places = Places(4, grace=math.inf)
    taken = await enter(places, "a", "a", "a", "b")
    order: list[str] = []

    async def wait(address: str) -> None:
        await enter(places, address)
        order.append(address)

    waiting = [asyncio.create_task(wait(address)) for address in ("a", "a", "b", "a", "b", "c")]
    await asyncio.sleep(0)
    for guest in taken:
        places.leave(guest)
        await asyncio.sleep(0)
    assert order == ["c", "a", "b", "a"]
    assert len(places) == 4
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_whoever_gives_up_while_its_turn_comes_keeps_no_place() -> None:
    places = Places(1, grace=math.inf)
    [old] = await enter(places, "a")
    waiting = asyncio.create_task(enter(places, "b"))
    await asyncio.sleep(0)
    places.leave(old)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert len(places) == 0


async def test_among_equals_newcomers_wait() -> None:
    for addresses, moves in (("abc", False), ("aaa", False), ("aab", True)):
        places = Places(3, grace=0.0, among_equals=False)
        guests = await enter(places, *addresses)
        newcomer = asyncio.create_task(enter(places, "d"))
        await asyncio.sleep(0)
        assert [guest.evicted for guest in guests] == [moves, False, False]
        places.leave(guests[1])
        await asyncio.wait_for(newcomer, 30)


async def test_leaving_twice_frees_one_place() -> None:
    places = Places(2, grace=1.0)
    one, _ = await enter(places, "a", "a")
    places.leave(one)
    places.leave(one)
    places.leave(Guest("nobody"))
    assert len(places) == 1


@pytest.mark.parametrize(("at", "expected"), [(0.5, False), (1.0, True)])
async def test_an_address_can_be_made_to_give_up_its_own(at: float, expected: bool) -> None:
    clock = Clock()
    places = Places(9, grace=1.0, clock=clock)
    mine, other = await enter(places, "a", "b")
    clock.now = at
    assert places.evict_one_of("a") is expected
    assert (mine.evicted, other.evicted) == (expected, False)
    assert places.evict_one_of("nobody") is False
