"""HTTP/2 through one tunnel: a connection where there is none, and another one where the old one is leaving."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from ensconce.proxy.back import BackConnection, Backs
from ensconce.serving.http2.frames import Http2Error

__all__ = ["Link"]

_PAUSE_S: Final = 0.2
"""Seconds for which nobody tries again where no connection could be had."""
_SOCKET_BYTES: Final = 1 << 20


class Link:
    """What speaks through a tunnel, for one event loop.

    Args:
        path: the tunnel's socket.
        backs: where its connections belong.
        patience: seconds for a connection, in which the tunnel opens and judges its own.
    """

    def __init__(self, path: str, backs: Backs, patience: float) -> None:
        self._path, self._backs, self._patience = path, backs, patience
        self._loop = asyncio.get_running_loop()
        self._current: BackConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._not_before = 0.0

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
            if self._dialling is None:
                if self._loop.time() < self._not_before:
                    raise ConnectionError
                self._dialling = self._loop.create_task(self._dial())
            # Others wait for the same connection: who gives up does not take it from them.
            dialling = self._dialling
            await asyncio.wait([dialling])
            if dialling.cancelled() or dialling.exception() is not None:
                raise ConnectionError
        return ready

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                local.setblocking(False)
                # As much as the system allows: an image of 600 kB then goes in fewer turns of the loop.
                local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                try:
                    await self._loop.sock_connect(local, self._path)
                except BaseException:
                    local.close()
                    raise
                _, connection = await self._loop.create_unix_connection(self._backs.connection, sock=local)
                try:
                    # Before the replica has spoken, nobody knows whether the tunnel has accepted it.
                    await asyncio.wait([connection.settled])
                finally:
                    if not connection.settled.done():
                        connection.abort()
                if connection.settled.cancelled():
                    raise ConnectionError
        except (OSError, TimeoutError, Http2Error):
            self._not_before = self._loop.time() + _PAUSE_S
            raise ConnectionError from None
        finally:
            self._dialling = None
        self._current = connection

    def close(self) -> None:
        """End it, with the calls on it; in any thread."""
        with contextlib.suppress(RuntimeError):  # The loop has ended, and everything with it.
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._current is not None and not self._current.is_lost:
            self._current.abort()
