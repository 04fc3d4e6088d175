"""The server's status over HTTP, on an address of its own: health, metrics, and the log's head for other owners.

GET only, one request for each connection, everything bounded, nothing secret. Put it where the owner's own machines
reach it; it has no authentication, and no TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from ensconce.provisioning.places import Places

__all__ = ["Answer", "serve_status"]

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 64
_MAX_REQUEST = 8 * 1024
_TIME = 10.0


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        status: HTTP status code.
        body: the body.
        content_type: its media type.
    """

    status: int
    body: bytes
    content_type: str = "application/json"


class _Visitor:
    """One connection, which may have to give way to another."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        self.address = str(name[0]) if name else ""
        self.evicted = False
        self._task = asyncio.current_task()

    def evict(self) -> None:
        self.evicted = True
        if self._task is not None:
            self._task.cancel()


async def serve_status(listener: socket.socket, answer: Callable[[str], Awaitable[Answer]]) -> asyncio.Server:
    """Serve status requests until the server that is returned is closed.

    Args:
        listener: a listening socket.
        answer: called with the target (path and query, printable ASCII) of each GET request.
    """
    # asyncio has no bound. Whoever dawdles gives way at once: an answer takes milliseconds.
    places = Places(_MAX_CONNECTIONS, 0.0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = _Visitor(writer)
        try:
            await places.enter(visitor)
            async with asyncio.timeout(_TIME):
                await _converse(reader, writer, answer)
        except (TimeoutError, OSError, h11.ProtocolError):
            pass
        except Exception as error:
            _log.error("a status request failed inside", extra={"fields": {"kind": type(error).__name__}})
        except asyncio.CancelledError:
            if not visitor.evicted:
                raise
        finally:
            places.leave(visitor)
            writer.transport.abort()

    return await asyncio.start_server(serve, sock=listener, limit=_MAX_REQUEST)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[str], Awaitable[Answer]]
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST)
    try:
        request = await _request(connection, reader)
    except h11.RemoteProtocolError as error:
        given = Answer(error.error_status_hint, b"", "text/plain")
    else:
        if request is None:
            return
        if request.method != b"GET":
            given = Answer(405, b"", "text/plain")
        else:
            given = await answer(request.target.decode("ascii"))
    headers = [
        ("Content-Type", given.content_type),
        ("Content-Length", str(len(given.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    for event in (h11.Response(status_code=given.status, headers=headers), h11.Data(data=given.body)):
        writer.write(connection.send(event) or b"")
    await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
    # Until the other side hangs up, lest unread bytes of its make the kernel take the answer back.
    while await reader.read(_MAX_REQUEST):
        pass


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The request's head; None when the other side leaves."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await reader.read(_MAX_REQUEST)
        connection.receive_data(data)
        if not data:
            return None
