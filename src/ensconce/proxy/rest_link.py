"""HTTP/1.1 through one tunnel: connections that are kept for the next request, and others where all are in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import h11

from ensconce.client.loops import call_in
from ensconce.proxy.rest_back import READ_BYTES, RestAnswer, RestBack
from ensconce.serving.http1.memory import Memory

__all__ = ["DIALS", "RestLink"]

_log = logging.getLogger(__name__)

DIALS: Final = 4
"""Connections that one link opens at a time."""

_MOST: Final = 64
# A replica closes what is idle after 60 seconds; a request that meets that would be lost.
_KEPT_S: Final = 30.0

Connect = Callable[[Callable[[], RestBack]], Awaitable[RestBack]]


class RestLink:
    """What speaks through a tunnel, for one event loop.

    Args:
        connect: connects what it is given a maker of, or raises ConnectionError.
        patience: seconds for a connection, in which the tunnel opens and judges its own.
    """

    def __init__(self, connect: Connect, patience: float) -> None:
        self._connect, self._patience = connect, patience
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._kept: list[tuple[float, RestBack]] = []
        self._asking: set[RestBack] = set()
        self._room, self._dials = asyncio.Semaphore(_MOST), asyncio.Semaphore(DIALS)
        self._failed_at = -1.0
        self._is_closed = False

    async def ask(self, request: h11.Request, body: bytes, memory: Memory) -> RestAnswer:
        """Send a request, and wait for its answer.

        Args:
            request: see :meth:`RestBack.ask`.
            body: see there.
            memory: see there.

        Raises:
            ConnectionError: there is no connection to be had, and nothing was sent; the tunnel knows why.
            UnreachableError: see there.
        """
        async with self._room:
            back = self._take() or await self._dial()
            self._asking.add(back)
            try:
                answer = await back.ask(request, body, memory)
            finally:
                self._asking.discard(back)
            self._keep(back)
            return answer

    def _take(self) -> RestBack | None:
        """The connection that was used last, of those that nobody uses."""
        while self._kept:
            since, back = self._kept.pop()
            if back.is_open:
                if self._loop.time() - since < _KEPT_S:
                    return back
                back.abort()
        return None

    def _keep(self, back: RestBack) -> None:
        if self._is_closed:
            back.abort()
        elif back.is_open:
            self._kept = [(since, each) for since, each in self._kept if each.is_open]
            self._kept.append((self._loop.time(), back))

    async def _dial(self) -> RestBack:
        began = self._loop.time()
        async with self._dials:
            if (back := self._take()) is not None:
                return back
            # Who waited while it could not be had need not wait for the same again.
            if self._is_closed or self._failed_at >= began:
                raise ConnectionError
            try:
                async with asyncio.timeout(self._patience):
                    return await self._connect(lambda: RestBack(self._buffer))
            except Exception as error:
                if not isinstance(error, OSError | TimeoutError):
                    _log.error("connecting failed in a way that nobody foresaw", exc_info=True)
                self._failed_at = self._loop.time()
                raise ConnectionError from error

    def close(self) -> None:
        """End it, with the requests on it; in any thread."""
        call_in(self._loop, self._close)

    def _close(self) -> None:
        self._is_closed = True
        kept, self._kept = self._kept, []
        for back in [*self._asking, *(each for _, each in kept)]:
            back.abort()
