"""The connections of a server: what they share, their clock, and their orderly end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from ensconce.serving.http2.connection import Accept, Connection
from ensconce.serving.http2.lifetime import Lifetime
from ensconce.serving.http2.limits import ConnectionLimits
from ensconce.serving.http2.memory import Memory

__all__ = ["Http2Server"]

_TICK_SECONDS: Final = 0.25


class Http2Server:
    """Listens on sockets, and drives their connections until it is stopped."""

    def __init__(self, accept: Accept, limits: ConnectionLimits) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            accept: makes a stream for a connection, its number and its request.
            limits: of the connections.
        """
        self._accept, self._limits = accept, limits
        self._memory = Memory(server_bytes=limits.server_bytes, connection_bytes=limits.connection_bytes)
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Lifetime] = set()
        self._is_stopping = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._clock = self._loop.call_later(_TICK_SECONDS, self._tick)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that arrive, are here or are being sent."""
        return self._limits.server_bytes - self._memory.free

    async def listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Serve on a listening socket (TCP or UNIX), with TLS or without.

        Without TLS clients speak HTTP/2 without asking (RFC 9113, section 3.3).
        """
        make = self._loop.create_unix_server if listener.family == socket.AF_UNIX else self._loop.create_server
        timeout = None if context is None else self._limits.handshake
        self._listeners.append(await make(self._connection, sock=listener, ssl=context, ssl_handshake_timeout=timeout))

    def _connection(self) -> Connection:
        return Connection(self, self._accept, self._limits, self._memory)

    def joined(self, connection: Lifetime) -> bool:
        """A connection is there; False when it may not stay."""
        if self._is_stopping or len(self._connections) >= self._limits.connections:
            return False
        self._connections.add(connection)
        self._is_empty.clear()
        return True

    def left(self, connection: Lifetime) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def _tick(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            connection.tick(now)
        self._clock = self._loop.call_later(_TICK_SECONDS, self._tick)

    async def stop(self, grace: float) -> None:
        """Take no more connections, answer what was asked for ``grace`` seconds at most, and close everything."""
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.drain(grace)
        try:
            await asyncio.wait_for(self._is_empty.wait(), grace)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._is_empty.wait()
        self._clock.cancel()
