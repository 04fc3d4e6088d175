"""A bounded number of places for connections; when all are taken, one connection may have to give way to another.

It is the oldest one of the address that holds the most places, and only once it was left alone for a while. So one
address cannot crowd out others, and a stranger with many addresses has to come back faster than an honest client needs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
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
    """

    def __init__(self, size: int, grace: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._grace = grace
        self._clock = clock
        # By address, in the order in which they came.
        self._guests: dict[str, dict[Guest, float]] = {}
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return self._taken

    async def enter(self, guest: Guest) -> None:
        """Take a place; waits for one if need be. The guest who gives way for it is evicted."""
        while self._taken >= self._size:
            oldest, since = self._next_to_go()
            left = since + self._grace - self._clock()
            if left <= 0:
                self.leave(oldest)
                oldest.evict()
                continue
            await self._wait(left)
        self._guests.setdefault(guest.address, {})[guest] = self._clock()
        self._taken += 1

    def leave(self, guest: Guest) -> None:
        """Give the place back; does nothing for who has none."""
        neighbours = self._guests.get(guest.address, {})
        if neighbours.pop(guest, None) is None:
            return
        if not neighbours:
            del self._guests[guest.address]
        self._taken -= 1
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                break

    def evict_one_of(self, address: str) -> bool:
        """Make the oldest guest of this address give way, if one has been left alone for long enough."""
        for guest, since in self._guests.get(address, {}).items():
            if self._clock() < since + self._grace:
                return False
            self.leave(guest)
            guest.evict()
            return True
        return False

    def _next_to_go(self) -> tuple[Guest, float]:
        def weight(guests: dict[Guest, float]) -> tuple[int, float]:
            return len(guests), -next(iter(guests.values()))

        return next(iter(max(self._guests.values(), key=weight).items()))

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        timer = None if math.isinf(seconds) else loop.call_later(seconds, _settle, turn)
        try:
            await turn
        finally:
            if timer is not None:
                timer.cancel()
            if turn in self._waiting:
                self._waiting.remove(turn)


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
