from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
Start = Callable[..., Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (HEAD + b"X: a\r\n b\r\n\r\n", 400),
        (HEAD + b"X: a\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17_000, 431),
        (HEAD + b"X: y\r\n" * 200 + b"\r\n", 431),
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 4, 413),
        (HEAD + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\na", 415),
        (HEAD + b"Expect: miracles\r\n\r\n", 417),
    ],
)
async def test_refusals_end_the_connection(start: Start, data: bytes, status: int) -> None:
    world = await start(body_bytes=100_000)
    peer = await world.connect()
    # What follows a refused request is no request, whatever it looks like.
    peer.send(data + HEAD + b"\r\n")
    answer = await peer.answer()
    assert answer[0] == status
    assert answer[1]["connection"] == "close"
    assert await peer.end() == b""
    assert world.echo.requests == []


async def test_a_refused_body_is_read_for_a_while_so_that_the_answer_arrives(start: Start) -> None:
    peer = await (await start(body_bytes=1000)).connect()
    peer.send(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"a" * 3_000_000)
    await peer.writer.drain()
    assert (await peer.answer())[0] == 413


async def test_who_goes_on_talking_is_cut_off(start: Start) -> None:
    peer = await (await start(body_bytes=1000, linger_bytes=100_000)).connect()
    peer.send(HEAD + b"Content-Length: 3000000\r\n\r\n")

    async def talk() -> None:
        while True:
            peer.send(b"a" * 10_000)
            await peer.writer.drain()
            await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await talk()


async def test_leave_to_continue(start: Start) -> None:
    peer = await (await start()).connect()
    peer.send(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await peer.answer())[0] == 100
    peer.send(b"abc")
    assert (await peer.answer())[2] == b"POST abc"
    peer.send(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
    assert (await peer.answer())[:1] == (200,)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /", 408),
        (HEAD, 408),
        (HEAD + b"Content-Length: 10\r\n\r\nabc", 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab", 408),
        (b"", 0),
        (b"\r\n", 0),
        (b"\r\n\r\n", 0),
        (b"\r\n\r", 408),
    ],
)
async def test_nobody_may_dawdle(start: Start, sent: bytes, status: int) -> None:
    peer = await (await start(header_time=0.3, body_time=0.3, idle=0.3)).connect()
    peer.send(sent)
    if status:
        assert (await peer.answer())[0] == status
    assert await peer.end() == b""


async def test_a_slow_body_does_not_buy_time_with_single_bytes(start: Start) -> None:
    peer = await (await start(body_time=0.5)).connect()
    peer.send(HEAD + b"Content-Length: 100000\r\n\r\n")

    async def drip() -> None:
        while True:
            peer.send(b"a")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert (await peer.answer())[0] == 408
    dripping.cancel()
