from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.http1.server import HttpServer

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"


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

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
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
    peer = Peer(*await asyncio.open_unix_connection(str(tmp_path / "s")))
    world.peers.append(peer)
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


async def test_nothing_is_computed_for_who_is_gone(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/never") + b"\r\n")
    await world.echo.entered.wait()
    peer.writer.close()
    await asyncio.wait_for(world.echo.cancelled.wait(), 30)


async def test_a_defect_tells_its_kind_alone(start: Start) -> None:
    peer = await (await start()).connect()
    peer.send(HEAD.replace(b"/a", b"/broken") + b"\r\n")
    assert (await peer.answer())[::2] == (500, b"Internal error: RuntimeError")


async def test_there_are_not_too_many_connections(start: Start) -> None:
    world = await start(connections=2)
    peers = [await world.connect() for _ in range(2)]
    for peer in peers:
        peer.send(HEAD + b"\r\n")
        assert (await peer.answer())[0] == 200
    # Nobody is asking anything: the one that has been silent for longest makes room.
    third = await world.connect()
    third.send(HEAD + b"\r\n")
    assert (await third.answer())[0] == 200
    assert await peers[0].end() == b""
    peers[1].send(HEAD + b"\r\n")
    assert (await peers[1].answer())[0] == 200
    assert world.server.connections == 2


async def test_connections_that_are_busy_are_not_closed_for_others(start: Start) -> None:
    world = await start(connections=1)
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/later") + b"\r\n")
    await world.echo.entered.wait()
    assert await (await world.connect()).end() == b""
    world.echo.go_on.set()
    assert (await peer.answer())[0] == 200


async def test_connections_age(start: Start) -> None:
    peer = await (await start(age=0.0)).connect()
    peer.send(HEAD + b"\r\n")
    assert (await peer.answer())[1]["connection"] == "close"
    assert await peer.end() == b""


async def test_stopping_answers_what_was_asked(start: Start) -> None:
    world = await start()
    busy, idle = await world.connect(), await world.connect()
    busy.send(HEAD.replace(b"/a", b"/later") + b"\r\n")
    await world.echo.entered.wait()
    stopping = asyncio.create_task(world.server.stop(30))
    assert await idle.end() == b""
    world.echo.go_on.set()
    status, fields, _ = await busy.answer()
    assert (status, fields["connection"]) == (200, "close")
    await stopping
    with pytest.raises(OSError):
        await world.connect()


async def test_stopping_does_not_wait_for_ever(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/never") + b"\r\n")
    await world.echo.entered.wait()
    await asyncio.wait_for(world.server.stop(0.1), 30)
    assert await peer.end() == b""
    assert world.echo.cancelled.is_set()


def test_errors_name_their_check() -> None:
    assert HttpError(400, "x").check == "serving.http"
