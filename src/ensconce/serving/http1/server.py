"""The connections of a server: what they share, their clock, and their orderly end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from ensconce.serving.http1.connection import Connection, Handler
from ensconce.serving.http1.limits import HttpLimits
from ensconce.serving.http1.memory import Memory
from ensconce.serving.http1.messages import HttpError, Response

__all__ = ["HttpServer"]

_TICK_SECONDS: Final = 0.25
# Before the listeners close, clients that are busy get this long to hear "Connection: close" with an answer.
_NOTICE_SECONDS: Final = 0.25


class HttpServer:
    """Listens on sockets, and drives their connections until it is stopped."""

    def __init__(self, handler: Handler, on_error: Callable[[HttpError], Response], limits: HttpLimits) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            handler: answers requests.
            on_error: makes the answer to what is refused before it gets there.
            limits: of the connections.
        """
        self.handler, self.on_error, self.limits = handler, on_error, limits
        self.memory = Memory(limits.server_bytes)
        self.is_stopping = False
        self.date = _date()
        """The field Date, as a line."""
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._clock = self._loop.call_later(_TICK_SECONDS, self._tick)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Serve on a listening socket (TCP or UNIX), with TLS or without."""
        make = self._loop.create_unix_server if listener.family == socket.AF_UNIX else self._loop.create_server
        timeout = None if context is None else self.limits.handshake
        self._listeners.append(
            await make(lambda: Connection(self), sock=listener, ssl=context, ssl_handshake_timeout=timeout)
        )

    def joined(self, connection: Connection) -> bool:
        """A connection is there; False when it may not stay."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        self._is_empty.clear()
        return True

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def _tick(self) -> None:
        self.date = _date()
        now = self._loop.time()
        for connection in list(self._connections):
            connection.tick(now)
        self._clock = self._loop.call_later(_TICK_SECONDS, self._tick)

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection."""
        self.is_stopping = True
        if self._connections:
            await asyncio.sleep(min(_NOTICE_SECONDS, grace))
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.drain()
        try:
            await asyncio.wait_for(self._is_empty.wait(), grace)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._is_empty.wait()
        self._clock.cancel()


def _date() -> bytes:
    return f"date: {formatdate(usegmt=True)}\r\n".encode()
