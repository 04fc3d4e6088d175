from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ensconce.serving.http1.messages import Response

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
Start = Callable[..., Coroutine[Any, Any, Any]]


async def test_what_is_sent_ahead_is_bounded(start: Start) -> None:
    world = await start(ahead_bytes=10_000)
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/later") + b"\r\n")
    await world.echo.entered.wait()
    request = HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while sent < 40_000:
            peer.send(request)
            await peer.writer.drain()
            sent += 1

    flooding = asyncio.create_task(flood())
    # The kernel's buffers take some megabytes; ours takes ten thousand bytes, and then nothing is read.
    while True:
        before = sent
        await asyncio.sleep(0.5)
        if sent == before:
            break
    assert sent < 40_000
    assert len(world.echo.requests) == 1
    world.echo.go_on.set()
    assert (await peer.answer())[0] == 200
    for _ in range(100):
        assert (await peer.answer())[2] == b"POST " + b"x" * 1000
    flooding.cancel()


async def test_who_takes_no_answer_is_disconnected(start: Start) -> None:
    world = await start(stall=0.5)
    peer = await world.connect()
    body = b"x" * 20_000_000
    peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    while not world.echo.requests:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        while world.server.connections:
            await asyncio.sleep(0.05)


async def test_all_bodies_together_are_bounded(start: Start) -> None:
    world = await start(server_bytes=150_000, body_bytes=100_000)
    one, two, three = [await world.connect() for _ in range(3)]
    one.send(HEAD + b"Content-Length: 100000\r\n\r\n" + b"a" * 90_000)
    while world.server.memory.used < 90_000:
        await asyncio.sleep(0.01)
    two.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    status, _, text = await two.answer()
    assert (status, text) == (503, b"The server has no memory for the body at the moment")
    three.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"b" * 4096 + b"\r\n")
    for _ in range(20):
        three.send(b"1000\r\n" + b"b" * 4096 + b"\r\n")
    assert (await three.answer())[0] == 503
    one.send(b"a" * 10_000)
    assert (await one.answer())[0] == 200
    assert world.server.memory.used == 0


async def test_answers_that_nobody_takes_count_as_well(start: Start) -> None:
    world = await start(server_bytes=30_000_000, body_bytes=20_000_000)
    body = b"x" * 20_000_000
    peers = [await world.connect() for _ in range(2)]
    peers[0].send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    while not world.echo.requests:
        await asyncio.sleep(0.01)
    peers[1].send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (await peers[1].answer())[0] == 503
    assert (await peers[0].answer())[0] == 200
    while world.server.memory.used:
        await asyncio.sleep(0.01)


async def test_an_answer_that_there_is_no_memory_for_is_not_sent(start: Start) -> None:
    world = await start(server_bytes=200_000)
    world.server.handler = lambda request: Response(200, bytes(300_000), "text/plain")
    peer = await world.connect()
    peer.send(HEAD + b"\r\n")
    status, _, text = await peer.answer()
    assert (status, text) == (503, b"The server has no memory for the answer at the moment")
