"""What a connection's work costs; what it does is seen over sockets, in the integration tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ensconce.serving.http1.connection import Connection
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.http1.server import HttpServer

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


class Transport(asyncio.Transport):
    """Takes everything, and tells nothing."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None


async def test_the_last_drops_of_a_body_cost_what_its_first_did() -> None:
    asked: list[Request] = []

    def handle(request: Request) -> Response:
        asked.append(request)
        return Response(200, b"")

    def on_error(error: HttpError) -> Response:
        raise error

    server = HttpServer(handle, on_error, Http1Limits(server_bytes=1 << 30))
    connection = Connection(server, server.age())
    connection.connection_made(Transport())
    connection.data_received(HEAD + b"Content-Length: 20000000\r\n\r\n")
    taken = []
    for _ in range(4):
        start = time.thread_time()
        for _ in range(25_000):
            connection.data_received(b"a" * 50)
        taken.append(time.thread_time() - start)
    assert taken[3] < 3 * taken[0]
    connection.data_received(b"a" * 15_000_000)
    assert asked[0].body == b"a" * 20_000_000
    connection.connection_lost(None)
    await server.stop(0)
