"""A small HTTP/1.1 server for GET requests and short POST requests, enough for a vendor on a network of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from http import HTTPStatus

import h11

from ensconce.platform.simulated.pccs import Response

__all__ = ["serve_http"]

_IDLE_S = 30.0
_MAX_CONNECTIONS = 128
_MAX_BODY = 16 * 1024

_log = logging.getLogger(__name__)


async def serve_http(
    host: str, port: int, get: Callable[[str], Response], post: Callable[[str, bytes], Response] | None = None
) -> asyncio.Server:
    """Listen, and answer requests until the server is closed.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        get: from path and query to the response.
        post: from path, query and body, which has at most 16 KiB, to the response; without it, only GET is answered.

    Raises:
        OSError: the address cannot be listened on.
    """
    open_connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        open_connections += 1
        try:
            if open_connections <= _MAX_CONNECTIONS:
                await _serve_connection(reader, writer, get, post)
        except (OSError, TimeoutError, h11.ProtocolError):
            _log.debug("a connection ended badly", exc_info=True)
        except asyncio.CancelledError:
            # The server is closing. This is the task's outermost frame, and asyncio's own would log a traceback.
            pass
        finally:
            open_connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(serve, host, port)


async def _serve_connection(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    get: Callable[[str], Response],
    post: Callable[[str, bytes], Response] | None,
) -> None:
    connection = h11.Connection(h11.SERVER)
    while True:
        response: Response | None = None
        try:
            async with asyncio.timeout(_IDLE_S):
                event = await _next_event(connection, reader)
                if isinstance(event, h11.ConnectionClosed):
                    return
                request, body = event, b""
                while not isinstance(event, h11.EndOfMessage):
                    event = await _next_event(connection, reader)
                    if isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > _MAX_BODY:
                            raise h11.RemoteProtocolError("too long a body", error_status_hint=413)
            if isinstance(request, h11.Request):
                response = _respond(request, body, get, post)
        except h11.RemoteProtocolError as error:
            response = Response(error.error_status_hint, "text/plain", b"Not HTTP.")
        if response is None:
            return
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *response.headers,
        ]
        reason = HTTPStatus(response.status).phrase.encode()
        for out in (
            h11.Response(status_code=response.status, headers=headers, reason=reason),
            h11.Data(data=response.body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(out) or b"")
        await writer.drain()
        if connection.states != {h11.SERVER: h11.DONE, h11.CLIENT: h11.DONE}:
            return
        connection.start_next_cycle()


def _respond(
    request: h11.Request,
    body: bytes,
    get: Callable[[str], Response],
    post: Callable[[str, bytes], Response] | None,
) -> Response:
    target = request.target.decode("ascii")
    if request.method == b"GET":
        return get(target)
    if request.method == b"POST" and post is not None:
        return post(target, body)
    allowed = "GET" if post is None else "GET, POST"
    return Response(405, "text/plain", f"Only {allowed}.".encode(), (("Allow", allowed),))


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(16384))
    if event is h11.PAUSED:
        raise h11.RemoteProtocolError("a second request before the first was answered")
    assert not isinstance(event, type)
    return event
