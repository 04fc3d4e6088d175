"""HTTP/2 through one tunnel: a connection where there is none, and another one where the old one is leaving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ensconce.client.loops import call_in
from ensconce.proxy.back import BackConnection, Backs

__all__ = ["Link"]

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
"""Seconds for which nobody tries again where no connection could be had."""

Connect = Callable[[Callable[[], BackConnection]], Awaitable[BackConnection]]


class Link:
    """What speaks through a tunnel, for one event loop.

    Args:
        connect: connects what it is given a maker of, or raises ConnectionError.
        backs: where its connections belong.
        patience: seconds for a connection, in which the tunnel opens and judges its own.
    """

    def __init__(self, connect: Connect, backs: Backs, patience: float) -> None:
        self._connect, self._backs, self._patience = connect, backs, patience
        self._loop = asyncio.get_running_loop()
        self._current: BackConnection | None = None
        self._dialling: asyncio.Task[bool] | None = None
        self._opened = self._not_before = 0.0
        self._is_closed = False

    def ready(self) -> BackConnection | None:
        """A connection on which a call can begin now, if there is one."""
        current = self._current
        return current if current is not None and current.is_open and current.has_room else None

    async def connection(self) -> BackConnection:
        """A connection on which a call can begin now, as soon as there is one.

        Raises:
            ConnectionError: there is none to be had; the tunnel knows why.
        """
        while (ready := self.ready()) is None:
            current = self._current
            if current is not None and current.is_open:
                await current.wait_for_room()
                continue
            if self._loop.time() < self._not_before:
                raise ConnectionError
            # Others wait for the same connection: who gives up does not take it from them.
            dialling = self._dial_once()
            await asyncio.wait([dialling])
            if dialling.cancelled() or not dialling.result():
                raise ConnectionError
        return ready

    def _dial_once(self) -> asyncio.Task[bool]:
        if self._dialling is None:
            self._dialling = self._loop.create_task(self._dial())
        return self._dialling

    async def _dial(self) -> bool:
        """Open a connection; whether it could be had."""
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._open()
        except Exception as error:
            if not isinstance(error, OSError | TimeoutError):
                _log.error("connecting failed in a way that nobody foresaw", exc_info=True)
            self._not_before = self._loop.time() + _PAUSE_S
            return False
        finally:
            self._dialling = None
        self._current, self._opened = connection, self._loop.time()
        connection.on_leaving = self.renew
        if not connection.is_open:
            self.renew()  # it has left already
        return True

    async def _open(self) -> BackConnection:
        connection = await self._connect(self._backs.connection)
        try:
            # A replica that has not spoken may still be none.
            await asyncio.wait([connection.settled])
        finally:
            if not connection.settled.done():
                connection.abort()
        if connection.settled.cancelled():
            raise ConnectionError
        return connection

    def renew(self) -> None:
        """Have a connection before the next call comes; if it cannot be had, the pool learns it now."""
        current = self._current
        if self._is_closed or self._dialling is not None or (current is not None and current.is_open):
            return
        # A replica that sends everybody away at once is not asked all the time.
        wait = self._opened + _PAUSE_S - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self.renew)
        else:
            self._dial_once()

    def close(self) -> None:
        """End it, with the calls on it; in any thread."""
        call_in(self._loop, self._close)

    def _close(self) -> None:
        self._is_closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        if self._current is not None and not self._current.is_lost:
            self._current.abort()
