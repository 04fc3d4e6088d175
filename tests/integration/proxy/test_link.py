"""HTTP/2 towards a replica, which here says what a test has it say: over a Unix socket, as through a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ensconce.proxy import link as link_module
from ensconce.proxy.back import BackConnection, Backs
from ensconce.proxy.link import Link
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ACK, END_STREAM, ErrorCode, Setting, Type
from ensconce.serving.http2.headers import encode_block

HEAD = encode_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
END = encode_block([(b"grpc-status", b"0")])
ASK = encode_block([(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/a.B/C"), (b":authority", b"d")])


class Far:
    """One connection, at the replica's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def greet(self, settings: dict[Setting, int] | None = None) -> None:
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        self.writer.write(frames.settings(settings or {}))

    async def frame(self) -> tuple[int, int, int, bytes]:
        header = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(header[:3]))
        return header[3], header[4], int.from_bytes(header[5:]), payload

    async def until(self, kind: Type, number: int | None = None) -> tuple[int, int, int, bytes]:
        while True:
            frame = await asyncio.wait_for(self.frame(), 5)
            if frame[0] == kind and number in (None, frame[2]):
                return frame

    def answer(self, number: int, body: bytes = b"") -> None:
        self.writer.write(frames.headers(number, HEAD))
        if body:
            self.writer.write(frames.data_header(number, len(body)) + body)
        self.writer.write(frames.headers(number, END, END_STREAM))

    async def ended(self) -> None:
        """Until the proxy closes."""
        while await self._reader.read(65536):
            pass


class Call:
    """What a client's call sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.over = asyncio.Event()
        self.passed = 0

    def on_head(self, fields: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        self.seen.append(("head", dict(fields)[b":status"]))
        if ended:
            self.over.set()

    def on_answer(self, data: bytes) -> None:
        self.seen.append(data)

    def on_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        self.seen.append(("end", fields))
        self.over.set()

    def on_lost(self, code: ErrorCode, *, is_cut: bool) -> None:
        self.seen.append((code, is_cut))
        self.over.set()

    def passed_on(self, amount: int) -> None:
        self.passed += amount

    async def done(self) -> list[Any]:
        await asyncio.wait_for(self.over.wait(), 5)
        return self.seen


Script = Callable[[Far], Coroutine[Any, Any, None]]


@pytest.fixture
async def linked(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """A link to a server that runs one script after the other, a connection each."""
    backs = Backs()
    tasks: set[asyncio.Task[None]] = set()
    servers = []

    async def make(*scripts: Script, patience: float = 5) -> Link:
        left = iter(scripts)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            script = next(left, None)
            if script is not None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                await script(Far(reader, writer))
            writer.close()

        servers.append(await asyncio.start_unix_server(serve, tmp_path / "tunnel"))

        async def connect(make: Callable[[], BackConnection]) -> BackConnection:
            _, connection = await asyncio.get_running_loop().create_unix_connection(make, str(tmp_path / "tunnel"))
            return connection

        return Link(connect, backs, patience)

    yield make
    await backs.stop(0)
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()


async def begin(link: Link, body: bytes | None = None) -> Call:
    call = Call()
    connection = await link.connection()
    back = connection.begin(call, ASK)  # type: ignore[arg-type]
    if body is not None:
        connection.output.send_body(back, body)
        connection.output.send_trailers(back, b"")
    return call


async def test_a_call_and_its_answer(linked) -> None:
    body = bytes(range(256)) * 1000
    got = bytearray()

    async def script(far: Far) -> None:
        await far.greet({Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        far.writer.write(frames.window_update(0, 1 << 20))
        kind, flags, _, payload = await far.until(Type.SETTINGS)
        assert frames.read_settings(payload)[Setting.ENABLE_PUSH] == 0
        assert (await far.until(Type.HEADERS))[2:] == (1, ASK)
        while not flags & END_STREAM or kind != Type.DATA:
            kind, flags, _, payload = await far.until(Type.DATA)
            got.extend(payload)
        far.answer(1, b"well")
        await far.ended()

    link = await linked(script)
    call = await begin(link, body)
    assert await call.done() == [("head", b"200"), b"well", ("end", [(b"grpc-status", b"0")])]
    assert bytes(got) == body
    assert call.passed == len(body)


async def test_more_calls_than_the_replica_takes_wait(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet({Setting.MAX_CONCURRENT_STREAMS: 1})
        await far.until(Type.HEADERS, 1)
        far.writer.write(frames.ping(bytes(8), ack=False))
        assert (await far.until(Type.PING))[1] & ACK  # and no second call before it
        far.answer(1)
        await far.until(Type.HEADERS, 3)
        far.answer(3)
        await far.ended()

    link = await linked(script)
    first = await begin(link, b"1")
    second = asyncio.ensure_future(begin(link, b"2"))
    await first.done()
    assert (await (await second).done())[-1] == ("end", [(b"grpc-status", b"0")])


async def test_calls_that_were_not_looked_at_are_handed_back_and_the_next_goes_elsewhere(linked, monkeypatch) -> None:
    monkeypatch.setattr(link_module, "_PAUSE_S", 0)
    allowed = asyncio.Event()

    async def leaving(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS, 3)
        far.writer.write(frames.go_away(1, ErrorCode.NO_ERROR))
        await allowed.wait()
        far.answer(1)
        await far.ended()

    async def staying(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS, 1)
        far.answer(1)
        await far.ended()

    link = await linked(leaving, staying)
    first, second = await begin(link, b"1"), await begin(link, b"2")
    assert await second.done() == [(ErrorCode.REFUSED_STREAM, False)]
    third = await begin(link, b"3")
    assert (await third.done())[0] == ("head", b"200")
    assert first.seen == []
    allowed.set()
    assert (await first.done())[-1] == ("end", [(b"grpc-status", b"0")])


async def test_a_connection_that_is_cut(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS)

    call = await begin(await linked(script))
    assert await call.done() == [(ErrorCode.CANCEL, True)]


async def test_a_reset_is_no_cut(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS)
        far.writer.write(frames.reset_stream(1, ErrorCode.ENHANCE_YOUR_CALM))
        await far.ended()

    call = await begin(await linked(script))
    assert await call.done() == [(ErrorCode.ENHANCE_YOUR_CALM, False)]


async def test_an_answer_before_the_request_has_ended(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS)
        far.answer(1)
        assert (await far.until(Type.RST_STREAM))[3] == bytes(4)  # nobody wants the rest
        far.writer.write(frames.ping(bytes(8), ack=False))
        await far.ended()

    call = await begin(await linked(script))
    assert (await call.done())[-1] == ("end", [(b"grpc-status", b"0")])


@pytest.mark.parametrize(
    "said",
    [
        frames.data_header(1, 1) + b"x",
        frames.headers(1, HEAD) + frames.headers(1, END),
    ],
    ids=["data before fields", "two heads"],
)
async def test_an_answer_that_is_none_ends_its_call_only(linked, said) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.until(Type.HEADERS, 1)
        far.writer.write(said)
        await far.until(Type.HEADERS, 3)
        far.answer(3)
        await far.ended()

    link = await linked(script)
    assert (await (await begin(link)).done())[-1] == (ErrorCode.PROTOCOL_ERROR, False)
    assert (await (await begin(link, b"")).done())[0] == ("head", b"200")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        frames.settings({}) + frames.headers(2, HEAD),
        frames.settings({}) + bytes((0, 0, 4, 5, 4, 0, 0, 0, 1)) + bytes(4),
        frames.settings({}) + bytes((0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 1)),
        frames.settings({}) + bytes((0, 0, 3, 7, 0, 0, 0, 0, 0)) + bytes(3),
        frames.settings({}) + bytes((0, 0, 8, 7, 0, 0, 0, 0, 1)) + bytes(8),
        frames.settings({}) + frames.headers(1, b"\x00" * 15_400),
    ],
    ids=["no HTTP/2", "a stream of its own", "a push", "a frame too long", "a short GOAWAY", "a GOAWAY for a stream",
         "fields without end"],
)  # fmt: skip
async def test_a_replica_that_breaks_the_protocol_is_left(linked, said) -> None:
    async def script(far: Far) -> None:
        far.writer.write(said)
        await far.ended()

    link = await linked(script)
    try:
        call = await begin(link)
    except ConnectionError:
        return
    assert await call.done() == [(ErrorCode.CANCEL, True)]


async def test_no_connection_in_time(linked) -> None:
    async def script(far: Far) -> None:
        await far.ended()

    link = await linked(script, patience=0.05)
    with pytest.raises(ConnectionError):
        await link.connection()


async def test_after_a_failure_nobody_asks_again_for_a_while(linked) -> None:
    asked = []

    async def script(far: Far) -> None:
        asked.append(far)

    link = await linked(script, script)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await link.connection()
    assert len(asked) == 1


async def test_those_who_wait_together_share_a_connection(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.ended()

    link = await linked(script)
    impatient = asyncio.ensure_future(link.connection())
    others = [asyncio.ensure_future(link.connection()) for _ in range(3)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert len(set(await asyncio.gather(*others))) == 1


async def test_a_closed_link_ends_its_calls(linked) -> None:
    async def script(far: Far) -> None:
        await far.greet()
        await far.ended()

    link = await linked(script)
    call = await begin(link)
    link.close()
    assert await call.done() == [(ErrorCode.CANCEL, True)]


async def test_a_connection_that_fails_in_a_way_that_nobody_foresaw(caplog) -> None:
    async def connect(_make: Callable[[], BackConnection]) -> BackConnection:
        raise ZeroDivisionError

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(Link(connect, Backs(), 5).connection(), 5)
    assert "nobody foresaw" in caplog.text
