"""What a hostile client can try, over a socket: in the end it is disconnected or refused, and others are served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import PREFACE, ErrorCode, Setting, Type, data_header, headers
from ensconce.serving.http2.headers import encode_block
from ensconce.serving.http2.limits import Patience

END_STREAM = frames.END_STREAM
CALM = ErrorCode.ENHANCE_YOUR_CALM


def fields(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), *more])


ASK, WAIT, LONG = fields(b"/echo"), fields(b"/wait"), fields(b"/long")


async def flood(peer: Any, part: bytes, times: int = 4 * Patience.FULL) -> ErrorCode:
    """Send a part again and again; the code with which the server has enough."""
    peer.greet()
    fault = asyncio.create_task(peer.fault())
    for _ in range(times // 100):
        if fault.done():
            break
        peer.send(100 * part)
        await asyncio.sleep(0)
    return await asyncio.wait_for(fault, 30)


@pytest.mark.parametrize("request_fields", [WAIT, ASK])
async def test_rapid_reset(connect: Any, request_fields: bytes) -> None:
    """CVE-2023-44487; also where streams are answered at once, so that none is there to be reset."""
    peer = await connect()
    peer.greet()
    fault = asyncio.create_task(peer.fault())
    number = 1
    while not fault.done() and number < 20_000:
        peer.send(headers(number, request_fields, END_STREAM), frames.reset_stream(number, ErrorCode.CANCEL))
        number += 2
        await asyncio.sleep(0)
    assert await fault == CALM


async def test_a_client_that_cancels_some_calls_is_no_attacker(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    for number in range(1, 2000, 4):
        peer.send(headers(number, WAIT, END_STREAM), frames.reset_stream(number, ErrorCode.CANCEL))
        if number % 8 == 1:
            assert await peer.ask(number + 2) == b"hello"


@pytest.mark.parametrize("end", [b"", b"x"], ids=["empty", "long"])
async def test_continuation_flood(connect: Any, end: bytes) -> None:
    """CVE-2024-27316."""
    peer = await connect()
    peer.greet()
    peer.send(b"\0\0\0\x01\0\0\0\0\1")
    part = len(end * 4000).to_bytes(3) + b"\x09\0\0\0\0\1" + end * 4000
    for _ in range(20):
        peer.send(part)
    assert await peer.fault() == CALM


async def test_header_lists_are_bounded_packed_and_unpacked(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    long = fields(b"/echo", (b"long", b"x" * 17_000))
    peer.send(headers(1, long))
    assert await peer.fault() == CALM
    # A field of 4,000 bytes in the table, then named a thousand times with a byte each.
    bomb = b"\x40\x01a\x7f" + bytes((4000 - 127 & 0x7F | 0x80, (4000 - 127) >> 7)) + b"b" * 4000 + b"\xbe" * 1000
    peer = await connect()
    peer.greet()
    peer.send(headers(1, fields(b"/echo") + bomb))
    assert await peer.fault() == CALM


@pytest.mark.parametrize(
    "part",
    [
        frames.ping(bytes(8), ack=False),
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 65535}),
        frames.settings_ack(),
        b"\0\0\5\2\0\0\0\0\3\0\0\0\1\1",
        frames.window_update(0, 1),
        b"\0\0\0\x42\0\0\0\0\0",
    ],
    ids=["ping", "settings", "acknowledgements", "priority", "tiny windows", "unknown"],
)
async def test_floods(connect: Any, part: bytes) -> None:
    assert await flood(await connect(), part) == CALM


async def test_empty_data_floods(connect: Any) -> None:
    peer = await connect()
    peer.send(b"")
    first = headers(1, WAIT)
    peer.greet()
    peer.send(first)
    fault = asyncio.create_task(peer.fault())
    for _ in range(400):
        peer.send(100 * data_header(1, 0))
        await asyncio.sleep(0)
    assert await fault == CALM


async def test_more_streams_than_allowed_are_refused(connect: Any) -> None:
    peer = await connect(streams=3)
    peer.greet()
    for number in (1, 3, 5, 7):
        peer.send(headers(number, WAIT, END_STREAM))
    assert await peer.reset(7) == ErrorCode.REFUSED_STREAM
    peer.send(frames.reset_stream(1, ErrorCode.CANCEL))
    assert await peer.ask(9) == b"hello"


async def test_more_connections_than_allowed_are_closed_while_all_are_busy(start: Any, connect: Any) -> None:
    _, port = await start(connections=2)
    first, second = await connect(port), await connect(port)
    for peer in (first, second):
        peer.greet()
        assert await peer.ask(1) == b"hello"
        peer.send(headers(3, WAIT, END_STREAM))
        assert await peer.ask(5) == b"hello"
    third = await connect(port)
    assert await asyncio.wait_for(third.rest(), 10) == b""
    assert await first.ask(7) == b"hello"


async def test_who_keeps_connections_for_nothing_makes_room_for_others(start: Any, connect: Any) -> None:
    server, port = await start(connections=3)
    first, second, third = [await connect(port) for _ in range(3)]
    for peer in (first, second):
        peer.greet()
        assert await peer.ask(1) == b"hello"
    first.send(headers(3, WAIT, END_STREAM))
    second.send(headers(3, WAIT))  # its body never comes
    assert await first.ask(5) == b"hello"
    for gone in (third, second):
        new = await connect(port)
        new.greet()
        assert await new.ask(1) == b"hello"
        new.send(headers(3, WAIT, END_STREAM))
        assert await new.ask(5) == b"hello"
        await asyncio.wait_for(gone.rest(), 10)
    assert await first.ask(7) == b"hello"
    assert server.connections == 3


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half", "no settings"])
async def test_slow_greetings(connect: Any, sent: bytes) -> None:
    peer = await connect(handshake=0.1)
    peer.send(sent)
    assert await peer.fault() == ErrorCode.SETTINGS_TIMEOUT


async def test_slow_headers(connect: Any) -> None:
    peer = await connect(header_time=0.1)
    peer.greet()
    peer.send(b"\0\0\1\x01\0\0\0\0\1\x82")
    assert await peer.fault() == CALM


async def test_slow_bodies(connect: Any) -> None:
    peer = await connect(stall=0.2)
    peer.greet()
    peer.send(headers(1, WAIT))
    dripping = asyncio.create_task(drip(peer))
    assert await peer.reset(1) == ErrorCode.CANCEL
    dripping.cancel()


async def drip(peer: Any) -> None:
    while True:
        peer.send(data_header(1, 1) + b"x")
        await asyncio.sleep(0.02)


async def test_idle_connections_are_closed_in_good_order(connect: Any) -> None:
    peer = await connect(idle=0.1)
    peer.greet()
    assert await peer.ask(1) == b"hello"
    assert await peer.fault() == ErrorCode.NO_ERROR


async def test_windows_that_stay_shut(connect: Any) -> None:
    peer = await connect(stall=0.2)
    peer.greet({Setting.INITIAL_WINDOW_SIZE: 0})
    peer.send(headers(1, ASK), data_header(1, 5, END_STREAM), b"hello")
    assert await peer.reset(1) == ErrorCode.CANCEL


async def test_windows_of_one_byte(connect: Any) -> None:
    peer = await connect()
    peer.greet({Setting.INITIAL_WINDOW_SIZE: 1})
    assert await peer.ask(1) == b"hello"


async def test_windows_that_become_negative(connect: Any) -> None:
    peer = await connect()
    peer.greet({Setting.INITIAL_WINDOW_SIZE: 10})
    peer.send(headers(1, fields(b"/size/30"), END_STREAM))
    assert len((await peer.until(Type.DATA, 1))[3]) == 10
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), frames.window_update(1, 15))
    assert len((await peer.until(Type.DATA, 1))[3]) == 5
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    assert len((await peer.until(Type.DATA, 1))[3]) == 15


async def test_windows_that_become_negative_while_the_connection_s_is_shut(connect: Any) -> None:
    peer = await connect()
    peer.greet({Setting.INITIAL_WINDOW_SIZE: 100_000})
    peer.send(headers(1, fields(b"/size/150000"), END_STREAM))
    taken = 0
    while taken < 65_535:
        taken += len((await peer.until(Type.DATA, 1))[3])
    # The stream waits for the connection's window, and its own is 65,535 below zero before that opens.
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), frames.window_update(0, 1_000_000))
    peer.send(frames.ping(b"anything", ack=False))
    assert (await peer.until(Type.PING))[3] == b"anything"
    peer.send(frames.window_update(1, 65_536))
    assert len((await peer.until(Type.DATA, 1))[3]) == 1
    peer.send(frames.window_update(1, 100_000))
    assert len(await peer.answer(1)) == 150_000 - 65_536


async def test_a_client_that_does_not_read_costs_no_more_than_its_answers(connect: Any) -> None:
    peer = await connect(stall=0.5)
    peer.greet({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    peer.send(frames.window_update(0, 1 << 30))
    peer.stop_reading()
    for number in range(1, 21, 2):
        peer.send(headers(number, fields(b"/size/8000000"), END_STREAM))
    for _ in range(200):
        peer.send(40 * frames.ping(bytes(8), ack=False))
        await asyncio.sleep(0.01)
    # It was disconnected meanwhile: the rest of what it asked for was never sent.
    peer._writer.transport.resume_reading()
    assert len(await asyncio.wait_for(peer.rest(), 20)) < 70_000_000


async def test_memory_is_bounded_for_a_connection_and_for_all(start: Any, connect: Any) -> None:
    mib = 1 << 20
    _, port = await start(connection_bytes=2 * mib, server_bytes=3 * mib, window_bytes=mib)
    first, second = await connect(port), await connect(port)
    for peer in (first, second):
        peer.greet()
    for number in (1, 3, 5):
        first.send(headers(number, WAIT), *(15 * [data_header(number, 65536) + bytes(65536)]))
    assert await first.reset(5) == CALM
    second.send(headers(1, WAIT), *(15 * [data_header(1, 65536) + bytes(65536)]))
    second.send(headers(3, WAIT), *(15 * [data_header(3, 65536) + bytes(65536)]))
    assert await second.reset(3) == CALM
    first.close()
    await first.rest()
    assert await second.ask(5, bytes(60_000)) == bytes(60_000)


async def test_header_fields_of_open_streams_are_bounded_together(start: Any, connect: Any) -> None:
    """Hundreds of bytes stand for 12 KiB of fields, once the table has a long one: 1024 connections would hold 4 GB."""
    mib = 1 << 20
    server, port = await start(connection_bytes=mib, server_bytes=2 * mib)
    first, second = await connect(port), await connect(port)
    first.greet()
    first.send(headers(1, fields(b"/wait") + b"\x40" + encode_block([(b"a", bytes(3900).replace(b"\0", b"v"))])[1:]))
    for number in range(3, 257, 2):
        first.send(headers(number, fields(b"/wait", (b"b", b"%d" % number)) + b"\xbe\xbe\xbe"))
    _, _, number, code = await first.until(Type.RST_STREAM)
    assert 100 < number < 200
    assert code == CALM.to_bytes(4)
    assert server.held_bytes <= mib
    second.greet()
    assert await second.ask(1) == b"hello"
    first.close()
    await first.rest()
    second.send(headers(3, WAIT))
    assert await second.ask(5) == b"hello"
    second.close()
    await second.rest()
    while server.connections:
        await asyncio.sleep(0.01)
    assert server.held_bytes == 0


async def test_long_bodies_come_one_after_the_other_when_memory_is_short(start: Any, connect: Any) -> None:
    mib = 1 << 20
    _, port = await start(connection_bytes=4 * mib, server_bytes=5 * mib, window_bytes=65536)
    body = (3 * mib).to_bytes(4) + bytes(3 * mib - 4)

    async def upload(peer: Any, number: int) -> int:
        peer.send(headers(number, LONG), data_header(number, 4), body[:4])
        await peer.until(Type.WINDOW_UPDATE, number)
        for at in range(4, len(body), 16384):
            part = body[at : at + 16384]
            peer.send(data_header(number, len(part), END_STREAM if at + 16384 >= len(body) else 0), part)
        return len(await peer.answer(number))

    peers = [await connect(port) for _ in range(4)]
    for peer in peers:
        peer.greet()
    for number in (1, 3):
        assert await asyncio.gather(*(upload(peer, number) for peer in peers)) == 4 * [len(body)]


async def test_connections_age(connect: Any) -> None:
    peer = await connect(age=0.2, grace=10)
    peer.greet()
    peer.send(headers(1, ASK))
    _kind, _, _, payload = await peer.until(Type.GOAWAY)
    assert payload[:4] == frames.LARGEST_WINDOW.to_bytes(4)
    # What was sent before the client could know is answered too.
    peer.send(headers(3, ASK, END_STREAM), data_header(1, 2, END_STREAM), b"hi")
    ping = (await peer.until(Type.PING))[3]
    assert await peer.answer(1) == b"hi"
    peer.send(frames.ping(ping, ack=True))
    assert (await peer.until(Type.GOAWAY))[3][:4] == (3).to_bytes(4)
    assert await asyncio.wait_for(peer.rest(), 10) == b""


async def test_a_slow_reader_gets_all_of_its_answer_while_the_connection_ends(connect: Any) -> None:
    size = 30_000_000
    peer = await connect(age=0.2, grace=60)
    peer.greet({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    peer.send(frames.window_update(0, 1 << 30), headers(1, fields(b"/size/%d" % size), END_STREAM))
    peer.stop_reading()
    await asyncio.sleep(1)
    peer._writer.transport.resume_reading()
    total = 0
    while True:
        kind, flags, _, payload = await peer.frame()
        if kind == Type.PING:
            peer.send(frames.ping(payload, ack=True))
        total += len(payload) if kind == Type.DATA else 0
        if kind == Type.HEADERS and flags & END_STREAM:
            break
    assert total == size
    await asyncio.wait_for(peer.rest(), 10)


async def test_what_comes_after_the_last_word_is_not_answered(connect: Any) -> None:
    peer = await connect(age=0.2, grace=0.5)
    peer.greet()
    peer.send(headers(1, WAIT))
    ping = (await peer.until(Type.PING))[3]
    peer.send(frames.ping(ping, ack=True))
    await peer.until(Type.GOAWAY)
    peer.send(headers(3, ASK, END_STREAM), headers(5, ASK), data_header(5, 1, END_STREAM) + b"x")
    # The stream that never ends has its grace, then everything is closed.
    assert await asyncio.wait_for(peer.rest(), 10) == b""


async def test_a_client_that_leaves_is_let_go(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    peer.send(headers(1, ASK), frames.go_away(0, ErrorCode.NO_ERROR), data_header(1, 2, END_STREAM), b"hi")
    assert (await peer.until(Type.DATA, 1))[3] == b"hi"
    assert await asyncio.wait_for(peer.rest(), 10)
