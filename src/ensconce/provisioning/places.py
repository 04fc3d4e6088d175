"""A bounded number of places for connections; when all are taken, one connection may have to give way to another.

It is the oldest one of the address that holds the most places, and only once it was left alone for a while. So one
address cannot crowd out others, and a stranger with many addresses has to come back faster than an honest client needs.
Of those who wait for a place, the one whose address holds the fewest gets it: those who come first have no advantage.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Guest", "Places"]


class Guest(Protocol):
    """What takes a place: a connection."""

    @property
    def address(self) -> str:
        """Whose it is."""
        ...

    def evict(self) -> None:
        """It has lost its place, and must end."""
        ...


class Places:
    """Places for one stage of connections' lives. For one event loop.

    Args:
        size: how many.
        grace: seconds that a guest is left alone; infinite where nobody ever gives way.
        clock: seconds, monotonic.
        among_equals: whether somebody has to go also when no address holds more than one place, or one of them all;
            otherwise, newcomers wait until somebody leaves.
    """

    def __init__(
        self,
        size: int,
        grace: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        *,
        among_equals: bool = True,
    ) -> None:
        self._size = size
        self._grace = grace
        self._among_equals = among_equals
        self._clock = clock
        # By address, in the order in which they came.
        self._guests: dict[str, dict[Guest, float]] = {}
        self._taken = 0
        # By address as well; the address that was served last is the last.
        self._waiting: dict[str, dict[Guest, asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._taken

    async def enter(self, guest: Guest) -> None:
        """Take a place; waits for one if need be. The guest who gives way for it is evicted."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        first = not self._waiting
        self._waiting.setdefault(guest.address, {})[guest] = turn
        if first:  # otherwise, whatever those who wait are waiting for has not happened yet
            self._serve()
        try:
            await turn
        except BaseException:
            self._give_up(guest)
            self.leave(guest)  # its turn may have come at the same moment
            raise

    def leave(self, guest: Guest) -> None:
        """Give the place back; does nothing for who has none."""
        if self._remove(guest):
            self._serve()

    def evict_one_of(self, address: str) -> bool:
        """Make the oldest guest of this address give way, if one has been left alone for long enough."""
        for guest, since in self._guests.get(address, {}).items():
            if self._clock() < since + self._grace:
                return False
            guest.evict()
            self.leave(guest)
            return True
        return False

    def _serve(self) -> None:
        """Give places to those who wait, as long as there are any or can be made."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if self._taken >= self._size:
                oldest, since = self._next_to_go()
                if not self._among_equals and len(self._guests) in (1, self._taken):
                    return
                left = since + self._grace - self._clock()
                if left > 0:
                    if not math.isinf(left):
                        self._timer = asyncio.get_running_loop().call_later(left, self._serve)
                    return
                self._remove(oldest)
                oldest.evict()
            address = min(self._waiting, key=lambda each: len(self._guests.get(each, ())))
            neighbours = self._waiting.pop(address)
            guest, turn = next(iter(neighbours.items()))
            del neighbours[guest]
            if neighbours:
                self._waiting[address] = neighbours
            if not turn.done():
                self._guests.setdefault(address, {})[guest] = self._clock()
                self._taken += 1
                turn.set_result(None)

    def _remove(self, guest: Guest) -> bool:
        neighbours = self._guests.get(guest.address, {})
        if neighbours.pop(guest, None) is None:
            return False
        if not neighbours:
            del self._guests[guest.address]
        self._taken -= 1
        return True

    def _give_up(self, guest: Guest) -> None:
        neighbours = self._waiting.get(guest.address, {})
        neighbours.pop(guest, None)
        if not neighbours:
            self._waiting.pop(guest.address, None)

    def _next_to_go(self) -> tuple[Guest, float]:
        def weight(guests: dict[Guest, float]) -> tuple[int, float]:
            return len(guests), -next(iter(guests.values()))

        return next(iter(max(self._guests.values(), key=weight).items()))
