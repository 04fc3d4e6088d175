from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import Request, Response
from ensconce.serving.http1.server import HttpServer


class Echo:
    """Answers with what it was sent; /later in a task, /never not at all, /broken with a defect."""

    def __init__(self, server: HttpServer | None = None) -> None:
        self.requests: list[Request] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        if request.target == "/a":
            return self.answer(request)
        return self.later(request)

    def answer(self, request: Request) -> Response:
        return Response(200, request.method.encode() + b" " + request.body, "text/plain")

    async def later(self, request: Request) -> Response:
        self.entered.set()
        if request.target == "/broken":
            raise RuntimeError("a secret")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.answer(request)


class Peer:
    """A client that sends what no client should."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:-2])
            body = await self.reader.readexactly(int(fields.get("content-length", "0")) if has_body else 0)
        return int(head[0].split()[1]), fields, body

    async def end(self) -> bytes:
        async with asyncio.timeout(30):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


class World:
    def __init__(self, server: HttpServer, echo: Echo, port: int) -> None:
        self.server, self.echo, self.port = server, echo, port
        self.peers: list[Peer] = []

    async def connect(self, path: str | None = None) -> Peer:
        """A client; ``path`` is a UNIX socket's."""
        at = asyncio.open_connection("127.0.0.1", self.port) if path is None else asyncio.open_unix_connection(path)
        peer = Peer(*await at)
        self.peers.append(peer)
        return peer


Start = Callable[..., Coroutine[Any, Any, World]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    worlds: list[World] = []

    async def begin(**limits: Any) -> World:
        echo = Echo()
        server = HttpServer(
            echo, lambda error: Response(error.status, error.problem.encode(), "text/plain"), Http1Limits(**limits)
        )
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        await server.listen(listener, None)
        worlds.append(World(server, echo, listener.getsockname()[1]))
        return worlds[-1]

    yield begin
    for world in worlds:
        await world.server.stop(0)
        assert world.server.memory.used == 0
        assert world.server.connections == 0
        for peer in world.peers:
            peer.writer.close()
