"""Two byte streams joined to each other (asyncio): backpressure, half-close, and an observer for what passes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["CHUNK", "Stream", "close", "join", "keep_alive"]

CHUNK = 64 * 1024
"""Most bytes read at once, and the buffer of each direction."""

Observer = Callable[[bytes], None]


class Stream(NamedTuple):
    """One TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def join(client: Stream, server: Stream, to_server: Observer, to_client: Observer) -> None:
    """Pass bytes both ways until both sides have ended, or one of them breaks.

    Each observer sees a chunk before it is passed on. A side that ends its direction (FIN) may still receive.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(client.reader, server.writer, to_server))
            group.create_task(_pass_on(server.reader, client.writer, to_client))
    except* (ConnectionError, TimeoutError):
        # One side was reset or timed out: the group has cancelled the other direction.
        pass


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, observe: Observer) -> None:
    while data := await reader.read(CHUNK):
        observe(data)
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the kernel find out when the other side is gone; without it a silent peer would hold its place for ever."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def close(stream: Stream) -> None:
    """Close both directions, and drop what the other side does not take within a second."""
    stream.writer.close()
    try:
        async with asyncio.timeout(1):
            await stream.writer.wait_closed()
    except (OSError, TimeoutError):
        stream.writer.transport.abort()
