from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ensconce.serving.handshakes import Handshakes
from ensconce.serving.tls import ServingCertificate


class Greeter(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class World:
    def __init__(self, issuer: Any, most: int, timeout: float) -> None:
        key, chain = issuer.issue("handshakes")
        Greeter.made = 0
        self.handshakes = Handshakes(Greeter, most, timeout)
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.handshakes.listen(listener, ServingCertificate(key, chain).http2_context)
        self._context = ssl.create_default_context(cadata=issuer.root_pem.decode())

    async def greeted(self) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._context)
        said = await reader.read()
        writer.close()
        return said

    async def silent(self) -> asyncio.StreamReader:
        """A connection that says nothing; it is kept open by what it is read with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        reader.writer = writer  # type: ignore[attr-defined]
        return reader


@pytest.fixture
async def start(issuer: Any) -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def begin(most: int = 4, timeout: float = 30) -> World:
        worlds.append(World(issuer, most, timeout))
        return worlds[-1]

    yield begin
    for world in worlds:
        world.handshakes.close()
        await world.handshakes.wait_closed()
        assert len(world.handshakes) == 0


async def test_silent_connections_keep_nobody_out(start: Callable[..., World]) -> None:
    world = start()
    silent = [await world.silent() for _ in range(10)]
    ended = [asyncio.create_task(each.read()) for each in silent]
    # The oldest go.
    assert await asyncio.gather(*ended[:6]) == [b""] * 6
    assert len(world.handshakes) == 4
    assert [await world.greeted() for _ in range(3)] == [b"hello"] * 3
    assert not ended[9].done()
    assert Greeter.made == 3
    world.handshakes.close()
    assert await ended[9] == b""


async def test_they_end_by_themselves(start: Callable[..., World]) -> None:
    world = start(timeout=0.2)
    assert await asyncio.wait_for((await world.silent()).read(), 10) == b""
    assert Greeter.made == 0


async def test_what_is_no_handshake_ends_at_once(start: Callable[..., World]) -> None:
    world = start()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.read(), 10)  # an alert
    writer.close()
    assert Greeter.made == 0
    assert await world.greeted() == b"hello"


async def test_nobody_is_taken_after_the_end(start: Callable[..., World]) -> None:
    world = start()
    world.handshakes.close()
    with pytest.raises(OSError):
        await world.silent()


async def test_without_file_descriptors_it_waits(
    start: Callable[..., World], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, failures = socket.socket.accept, [24]

    def failing(self: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    assert await start().greeted() == b"hello"
    assert caplog.messages == ["no connection can be taken for a while: Too many open files"]
