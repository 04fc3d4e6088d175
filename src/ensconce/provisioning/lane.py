"""Turns for quotes of one kind of platform, so that collateral that does not come holds up no other kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ensconce.errors import UnreachableError

__all__ = ["Lane"]

T = TypeVar("T")


class Lane:
    """Runs a few calls at a time. Any number may wait as long as it moves, and a few when it does not. For one loop.

    It does not move when all turns are taken and for ``patience`` none has begun or ended. Then those who wait beyond
    ``waiters`` are refused, the latest first, and so is whoever comes until it moves again.

    Args:
        turns: calls at a time.
        waiters: how many may wait while it does not move.
        patience: seconds.
    """

    def __init__(self, turns: int, waiters: int, patience: float) -> None:
        self._free = self._turns = turns
        self._waiters = waiters
        self._patience = patience
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._moved = 0.0
        self._look: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody has a turn or waits for one."""
        return self._free == self._turns and not self._waiting

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]], ended: Callable[[], object]) -> T:
        """Make a call when it is its turn, which it keeps to its own end, also when nobody waits for it any more.

        Args:
            call: what to do.
            ended: called when this leaves the lane: at the end of the call, or when it never came to one.

        Raises:
            UnreachableError: ``provisioning.busy``.
        """
        try:
            await self._enter()
        except BaseException:
            ended()
            raise
        task = asyncio.get_running_loop().create_task(call())

        def leave(task: asyncio.Task[T]) -> None:
            if not task.cancelled():
                task.exception()  # its caller may have gone
            self._leave()
            ended()

        task.add_done_callback(leave)
        return await asyncio.shield(task)

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
            self._moved = loop.time()
            return
        if len(self._waiting) >= self._waiters and loop.time() >= self._moved + self._patience:
            raise _busy()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if self._look is None:
            self._look = loop.call_at(self._moved + self._patience, self._turn_away)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
            elif turn.exception() is None:
                self._leave()  # it had been given the turn in the same moment
            raise

    def _leave(self) -> None:
        self._moved = asyncio.get_running_loop().time()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _turn_away(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = None
        if loop.time() < self._moved + self._patience:
            if self._waiting:
                self._look = loop.call_at(self._moved + self._patience, self._turn_away)
            return
        while len(self._waiting) > self._waiters:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_exception(_busy())


def _busy() -> UnreachableError:
    return UnreachableError(
        "provisioning.busy",
        "too many wait for collateral of this kind of platform, and it does not come",
        remedy="check that the PCCS answers, and try again",
    )
