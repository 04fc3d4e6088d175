"""A server of HTTP/2: what its connections share."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ensconce.serving.connections import ConnectionServer
from ensconce.serving.http2.connection import Accept, Connection
from ensconce.serving.http2.lifetime import Lifetime
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.memory import Memory

__all__ = ["Http2Server"]

_READ_BYTES: Final = 256 * 1024
"""At least so many can be read at once, behind the beginning of a frame. asyncio itself would make room for as many
before each read, which takes up to 20 us."""


class Http2Server(ConnectionServer[Lifetime]):
    """Drives the connections of its listeners. Without TLS clients speak HTTP/2 without asking (RFC 9113, 3.3)."""

    def __init__(self, accept: Accept, limits: Http2Limits) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            accept: makes a stream for a connection, its number and its request.
            limits: of the connections.
        """
        super().__init__(most=limits.connections, handshake=limits.handshake, age=limits.age)
        self._accept, self._limits = accept, limits
        self._buffer = memoryview(bytearray(_READ_BYTES + limits.frame_bytes))
        self._memory = Memory(server_bytes=limits.server_bytes, connection_bytes=limits.connection_bytes)

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that arrive, are here or are being sent."""
        return self._limits.server_bytes - self._memory.free

    def connection(self) -> Connection:
        """Make a connection."""
        limits = replace(self._limits, age=self.age())
        return Connection(self, self._accept, limits, self._memory, self._buffer)

    def joined(self, connection: Lifetime) -> bool:
        """A connection is there; False when it may not stay, as none may that comes after the listeners have closed."""
        return not self.is_stopping and super().joined(connection)

    def drain(self, connection: Lifetime, grace: float) -> None:
        """Ask the peer to go elsewhere, and give its calls ``grace`` seconds."""
        connection.drain(grace)
