from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ensconce.serving.http1.messages import HttpError, Request, Response

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
Start = Callable[..., Coroutine[Any, Any, Any]]


async def test_requests_one_after_another(start: Start) -> None:
    peer = await (await start()).connect()
    for body in (b"one", b"", b"x" * 300_000):
        peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        status, fields, answer = await peer.answer()
        assert (status, answer) == (200, b"POST " + body)
        assert "connection" not in fields
        assert fields["date"].endswith(" GMT")


async def test_a_request_in_single_bytes(start: Start) -> None:
    peer = await (await start()).connect()
    for byte in b"\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
        peer.send(bytes([byte]))
        await peer.writer.drain()
        await asyncio.sleep(0)
    assert (await peer.answer())[2] == b"POST abcde"


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    later = HEAD.replace(b"/a", b"/later")
    requests = [(later if number % 2 else HEAD, b"%d" % number) for number in range(20)]
    world.echo.go_on.set()
    peer.send(b"".join(head + b"Content-Length: %d\r\n\r\n" % len(body) + body for head, body in requests))
    assert [(await peer.answer())[2] for _ in requests] == [b"POST " + body for _, body in requests]


async def test_many_requests_in_one_piece_do_not_hold_up_others(start: Start) -> None:
    world = await start()
    many, other = await world.connect(), await world.connect()
    order: list[str] = []

    def answer(request: Request) -> Response:
        order.append(request.target)
        if len(order) == 1:
            other.writer.transport.write(HEAD.replace(b"/a", b"/other") + b"\r\n")
        return Response(200, b"", "text/plain")

    world.server.handler = answer
    many.send((HEAD + b"\r\n") * 500)
    for _ in range(500):
        assert (await many.answer())[0] == 200
    assert (await other.answer())[0] == 200
    assert order.index("/other") < 100


async def test_compressed_bodies(start: Start) -> None:
    world = await start(body_bytes=100_000, server_bytes=300_000)
    peer = await world.connect()
    for body in (b"small", b"a" * 100_000):
        packed = gzip.compress(body)
        peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
        assert (await peer.answer())[2] == b"POST " + body
    bomb = gzip.compress(bytes(50 << 20))
    for packed, status in ((bomb, 413), (b"not gzip", 400)):
        peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
        assert (await peer.answer())[0] == status
    assert world.server.memory.used == 0


async def test_what_is_decompressed_for_who_is_gone_is_counted_no_longer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gone, told = threading.Event(), threading.Event(), list[bool]()

    def slowly(data: bytes, limit: int, take: Callable[[int], bool]) -> bytes:
        told.append(take(1000))
        begun.set()
        gone.wait(10)
        told.append(take(1000))
        return b""

    monkeypatch.setattr("ensconce.serving.http1.connection.gunzip", slowly)
    world = await start()
    peer = await world.connect()
    peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na")
    await asyncio.to_thread(begun.wait, 10)
    peer.writer.transport.abort()
    async with asyncio.timeout(10):
        while world.server.connections:
            await asyncio.sleep(0.01)
        gone.set()
        while len(told) < 2:
            await asyncio.sleep(0.01)
    assert told == [True, False]
    assert world.server.memory.used == 0


async def test_compressed_answers_for_those_who_take_them(start: Start) -> None:
    peer = await (await start()).connect()
    for size, packs in ((100, False), (2000, True), (200_000, True)):
        for target in (b"/a",):
            body = b"z" * size
            head = HEAD.replace(b"/a", target) + b"Accept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % size
            peer.send(head + body)
            _, fields, answer = await peer.answer()
            assert fields.get("content-encoding") == ("gzip" if packs else None)
            assert (gzip.decompress(answer) if packs else answer) == b"POST " + body


async def test_head_has_no_body_but_its_length(start: Start) -> None:
    peer = await (await start()).connect()
    peer.send(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD + b"\r\n")
    status, fields, _ = await peer.answer(has_body=False)
    assert (status, fields["content-length"]) == (200, "5")
    assert (await peer.answer())[2] == b"POST "


async def test_over_a_unix_socket(start: Start, tmp_path: Any) -> None:
    world = await start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.setblocking(False)
    await world.server.listen(listener, None)
    peer = await world.connect(str(tmp_path / "s"))
    peer.send(HEAD + b"\r\n")
    assert (await peer.answer())[2] == b"POST "
    assert world.echo.requests[0].peer == "local"


async def test_old_clients(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    peer.send(b"GET /a HTTP/1.0\r\n\r\n")
    status, fields, _ = await peer.answer()
    assert (status, fields["connection"]) == (200, "close")
    assert await peer.end() == b""


async def test_a_defect_tells_its_kind_alone(start: Start) -> None:
    peer = await (await start()).connect()
    peer.send(HEAD.replace(b"/a", b"/broken") + b"\r\n")
    assert (await peer.answer())[::2] == (500, b"Internal error: RuntimeError")


def test_errors_name_their_check() -> None:
    assert HttpError(400, "x").check == "serving.http"
