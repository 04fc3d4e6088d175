"""Clients that want a quote first and then say nothing are no more than handshakes under way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ensconce.ratls.freshness import FRESH, answer
from ensconce.serving.handshakes import Handshakes
from ensconce.serving.quotes import Quotes
from ensconce.serving.tls import ServingCertificate


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


Begin = Callable[..., tuple[Handshakes, Callable[[str], Any]]]


@pytest.fixture
async def begin(issuer: Any) -> AsyncIterator[Begin]:
    begun: list[Handshakes] = []

    def make(
        most: int = 4, timeout: float = 30.0, quote: Callable[[bytes], bytes] = lambda data: b"quote" + data
    ) -> tuple[Handshakes, Callable[[str], Any]]:
        handshakes = Handshakes(Greeter, most, timeout)
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        quotes = Quotes(quote)
        handshakes.listen(listener, ServingCertificate(*issuer.issue("opening"), quotes=quotes).http2_context)
        port = listener.getsockname()[1]
        begun.append(handshakes)

        async def connect(protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            context = ssl.create_default_context(cadata=issuer.root_pem.decode())
            context.set_alpn_protocols([protocol])
            return await asyncio.open_connection("127.0.0.1", port, ssl=context)

        return handshakes, connect

    yield make
    for handshakes in begun:
        handshakes.close()
        await handshakes.wait_closed()
        assert len(handshakes) == 0


async def test_a_quote_and_then_the_protocol_proper(begin: Begin) -> None:
    _, connect = begin()
    reader, writer = await connect(FRESH["h2"])
    # In parts, as a network may bring it.
    writer.write(bytes(20))
    await writer.drain()
    writer.write(bytes(12))
    said = await reader.read()
    assert said[:9] == answer(bytes(69))[:4] + b"quote"
    assert said[4 + 69 :] == b"hello"
    writer.close()


async def test_who_says_nothing_keeps_nobody_out(begin: Begin) -> None:
    handshakes, connect = begin(most=3)
    silent = [await connect(FRESH["h2"]) for _ in range(6)]
    assert len(handshakes) <= 3
    reader, writer = await connect("h2")
    assert await reader.read() == b"hello"
    gone = 0
    for each, _ in silent[:3]:
        try:
            gone += await asyncio.wait_for(each.read(), 30) == b""
        except (ConnectionError, ssl.SSLError):
            gone += 1
    assert gone == 3
    for _, other in [*silent, (reader, writer)]:
        other.close()


async def test_who_says_nothing_is_cut_off_in_the_end(begin: Begin) -> None:
    _, connect = begin(timeout=0.3)
    # Perhaps within its handshake already, where that takes long.
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        reader, writer = await connect(FRESH["h2"])
        writer.write(bytes(31))
        with contextlib.closing(writer):
            assert await asyncio.wait_for(reader.read(), 30) == b""


async def test_a_platform_that_fails_in_a_way_of_its_own(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_data: bytes) -> bytes:
        raise ZeroDivisionError("the innermost secret")

    _, connect = begin(quote=fail)
    reader, writer = await connect(FRESH["h2"])
    writer.write(bytes(32))
    assert await asyncio.wait_for(reader.read(), 30) == answer(b"")
    assert "ZeroDivisionError at" in caplog.text
    assert "secret" not in caplog.text
    writer.close()
