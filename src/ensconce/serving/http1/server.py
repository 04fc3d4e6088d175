"""A server of HTTP/1.1: what its connections share, and how they learn that it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from ensconce.serving.connections import ConnectionServer
from ensconce.serving.http1.connection import Connection, Handler
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.memory import Memory
from ensconce.serving.http1.messages import HttpError, Response

__all__ = ["HttpServer"]

# Before the listeners close, clients that are busy get this long to hear "Connection: close" with an answer.
_NOTICE_SECONDS: Final = 0.25
_READ_BYTES: Final = 256 * 1024


class HttpServer(ConnectionServer[Connection]):
    """Answers requests on the connections of its listeners."""

    def __init__(self, handler: Handler, on_error: Callable[[HttpError], Response], limits: Http1Limits) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            handler: answers requests.
            on_error: makes the answer to what is refused before it gets there.
            limits: of the connections.
        """
        super().__init__(most=limits.connections, handshake=limits.handshake, age=limits.age)
        self.handler, self.on_error, self.limits = handler, on_error, limits
        self.memory = Memory(limits.server_bytes)
        # One is enough: between get_buffer and buffer_updated the event loop does nothing else. Without it asyncio
        # makes room for 256 KiB before each read, which takes up to 20 us.
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """What arrives lies there until it is read."""
        self.date = _date()
        """The field Date, as a line."""

    def connection(self) -> Connection:
        """Make a connection."""
        return Connection(self, self.age())

    def drain(self, connection: Connection, _grace: float) -> None:
        """Close it if nothing is being asked or answered; else with the next answer."""
        connection.drain()

    def tick(self) -> None:
        """Look at the clock."""
        self.date = _date()
        super().tick()

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection."""
        self.is_stopping = True
        if self.connections:
            await asyncio.sleep(min(_NOTICE_SECONDS, grace))
        await super().stop(grace)


def _date() -> bytes:
    return f"date: {formatdate(usegmt=True)}\r\n".encode()
