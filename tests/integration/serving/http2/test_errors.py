"""Each rule of RFC 9113 that a client can break, over a socket."""

from __future__ import annotations

from typing import Any

import pytest

from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import LARGEST_WINDOW, PREFACE, ErrorCode, Setting, Type, data_header, headers
from ensconce.serving.http2.headers import encode_block

ASK = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo")])
WAIT = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/wait")])
END_STREAM = frames.END_STREAM


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


async def test_an_echo(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    kind, flags, stream, payload = await peer.frame()
    assert (kind, flags, stream) == (Type.SETTINGS, 0, 0)
    assert frames.read_settings(payload)[Setting.MAX_CONCURRENT_STREAMS] == 256
    assert await peer.ask(1) == b"hello"
    assert await peer.ask(3, bytes(60_000)) == bytes(60_000)
    assert await peer.ask(7, b"") == b""


async def test_settings_are_acknowledged_and_pings_answered(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    assert (await peer.frame())[:2] == (Type.SETTINGS, 0)
    assert (await peer.frame())[0] == Type.WINDOW_UPDATE
    assert await peer.frame() == (Type.SETTINGS, frames.ACK, 0, b"")
    peer.send(frames.ping(b"12345678", ack=False))
    assert await peer.frame() == (Type.PING, frames.ACK, 0, b"12345678")


PROTOCOL = ErrorCode.PROTOCOL_ERROR
SIZE = ErrorCode.FRAME_SIZE_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        # 6.1
        (raw(Type.DATA, 0, 0, b"x"), PROTOCOL),
        (raw(Type.DATA, 0, 1, b"x"), PROTOCOL),
        (headers(1, WAIT) + raw(Type.DATA, frames.PADDED, 1, b"\x05pad"), PROTOCOL),
        (headers(1, WAIT) + raw(Type.DATA, frames.PADDED, 1), SIZE),
        # 6.2
        (headers(0, ASK), PROTOCOL),
        (headers(2, ASK), PROTOCOL),
        (raw(Type.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\xff" + ASK), PROTOCOL),
        (raw(Type.HEADERS, frames.END_HEADERS | frames.PRIORITY_FLAG, 1, b"1234"), SIZE),
        # 6.3
        (raw(Type.PRIORITY, 0, 0, b"12345"), PROTOCOL),
        (raw(Type.PRIORITY, 0, 1, b"1234"), SIZE),
        # 6.4
        (raw(Type.RST_STREAM, 0, 0, b"1234"), PROTOCOL),
        (raw(Type.RST_STREAM, 0, 1, b"1234"), PROTOCOL),
        (headers(1, WAIT) + raw(Type.RST_STREAM, 0, 1, b"123"), SIZE),
        # 6.5
        (raw(Type.SETTINGS, frames.ACK, 0, b"123456"), SIZE),
        (raw(Type.SETTINGS, 0, 1), PROTOCOL),
        (raw(Type.SETTINGS, 0, 0, b"12345"), SIZE),
        (frames.settings({Setting.ENABLE_PUSH: 2}), PROTOCOL),
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW + 1}), FLOW),
        (frames.settings({Setting.MAX_FRAME_SIZE: 16383}), PROTOCOL),
        (frames.settings({Setting.MAX_FRAME_SIZE: 1 << 24}), PROTOCOL),
        # 6.6
        (raw(Type.PUSH_PROMISE, frames.END_HEADERS, 1, b"\0\0\0\2" + ASK), PROTOCOL),
        # 6.7
        (raw(Type.PING, 0, 1, b"12345678"), PROTOCOL),
        (raw(Type.PING, 0, 0, b"1234567"), SIZE),
        # 6.8
        (raw(Type.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
        (raw(Type.GOAWAY, 0, 0, bytes(7)), SIZE),
        # 6.9
        (raw(Type.WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL),
        (raw(Type.WINDOW_UPDATE, 0, 0, b"123"), SIZE),
        (raw(Type.WINDOW_UPDATE, 0, 5, b"\0\0\0\1"), PROTOCOL),
        (frames.window_update(0, LARGEST_WINDOW), FLOW),
        (
            headers(1, WAIT)
            + frames.window_update(1, LARGEST_WINDOW - 65535)
            + frames.settings({Setting.INITIAL_WINDOW_SIZE: 65536}),
            FLOW,
        ),
        # 6.10
        (raw(Type.CONTINUATION, frames.END_HEADERS, 1, ASK), PROTOCOL),
        (raw(Type.HEADERS, 0, 1, ASK) + raw(Type.CONTINUATION, frames.END_HEADERS, 3), PROTOCOL),
        (raw(Type.HEADERS, 0, 1, ASK) + frames.ping(bytes(8), ack=False), PROTOCOL),
        (raw(Type.HEADERS, 0, 1, ASK) + raw(77, 0, 0), PROTOCOL),
        # 4.2, 4.3
        (raw(Type.PING, 0, 0, bytes(65537)), SIZE),
        (headers(1, b"\xff\xff\xff\xff\xff\x0f"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\x00\x05ab"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
        # 5.1.1: numbers go up
        (headers(5, WAIT) + headers(3, ASK), PROTOCOL),
        # 5.1: a stream that has ended
        (headers(1, ASK, END_STREAM) + headers(1, ASK, END_STREAM), ErrorCode.STREAM_CLOSED),
    ],
)
async def test_connection_errors(connect: Any, sent: bytes, code: ErrorCode) -> None:
    peer = await connect()
    peer.greet()
    peer.send(sent)
    assert await peer.fault() == code


def request(*pairs: tuple[bytes, bytes]) -> bytes:
    return encode_block(pairs)


METHOD, SCHEME, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo")
TEN_THOUSAND = request(METHOD, SCHEME, PATH, (b"content-length", b"10000"))


@pytest.mark.parametrize(
    "block",
    [
        request(METHOD, SCHEME),
        request(METHOD, PATH),
        request(SCHEME, PATH),
        request(METHOD, SCHEME, (b":path", b"")),
        request(METHOD, METHOD, SCHEME, PATH),
        request(METHOD, SCHEME, PATH, (b":status", b"200")),
        request(METHOD, SCHEME, PATH, (b":protocol", b"x")),
        request(METHOD, SCHEME, (b"a", b"b"), PATH),
        request(METHOD, SCHEME, PATH, (b"Upper", b"case")),
        request(METHOD, SCHEME, PATH, (b"", b"nameless")),
        request(METHOD, SCHEME, PATH, (b"a b", b"blank")),
        request(METHOD, SCHEME, PATH, (b"a", b"line\r\nfeed")),
        request(METHOD, SCHEME, PATH, (b"connection", b"close")),
        request(METHOD, SCHEME, PATH, (b"transfer-encoding", b"chunked")),
        request(METHOD, SCHEME, PATH, (b"te", b"gzip")),
        request(METHOD, SCHEME, PATH, (b"content-length", b"-1")),
        request(METHOD, SCHEME, PATH, (b"content-length", b"5"), (b"content-length", b"5")),
    ],
)
async def test_malformed_requests_end_their_stream_alone(connect: Any, block: bytes) -> None:
    peer = await connect()
    peer.greet()
    peer.send(headers(1, block))
    assert await peer.reset(1) == PROTOCOL
    assert await peer.ask(3) == b"hello"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        # 5.1: half-closed (remote)
        (headers(1, WAIT, END_STREAM) + data_header(1, 1) + b"x", ErrorCode.STREAM_CLOSED),
        (headers(1, WAIT, END_STREAM) + headers(1, b"", END_STREAM), ErrorCode.STREAM_CLOSED),
        # 5.1: closed
        (headers(1, ASK, END_STREAM) + data_header(1, 1) + b"x", ErrorCode.STREAM_CLOSED),
        # 6.9
        (headers(1, WAIT) + raw(Type.WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL),
        (headers(1, WAIT) + frames.window_update(1, LARGEST_WINDOW), FLOW),
        # 6.9.1: more than the stream's window
        (headers(1, WAIT) + 17 * (data_header(1, 65536) + bytes(65536)), FLOW),
        # 8.1: trailers
        (headers(1, WAIT) + headers(1, encode_block([(b"a", b"b")])), PROTOCOL),
        (headers(1, WAIT) + headers(1, encode_block([(b":path", b"b")]), END_STREAM), PROTOCOL),
        # 8.1.1: content-length
        (headers(1, request(METHOD, SCHEME, PATH, (b"content-length", b"2")), END_STREAM), PROTOCOL),
        (headers(1, request(METHOD, SCHEME, PATH, (b"content-length", b"2"))) + data_header(1, 3) + b"abc", PROTOCOL),
        (headers(1, request(METHOD, SCHEME, PATH, (b"content-length", b"2"))) + data_header(1, 1, 1) + b"a", PROTOCOL),
        # in the midst of a body whose frames are read together
        (headers(1, WAIT) + 70 * (data_header(1, 16384) + bytes(16384)), FLOW),
        (headers(1, TEN_THOUSAND) + 5 * (data_header(1, 5000) + bytes(5000)), PROTOCOL),
        (headers(1, TEN_THOUSAND) + 2 * (data_header(1, 4999) + bytes(4999)) + data_header(1, 1, 1) + b"x", PROTOCOL),
        (headers(1, WAIT) + 2 * (data_header(1, 5000, 1) + bytes(5000)), ErrorCode.STREAM_CLOSED),
    ],
)
async def test_stream_errors(connect: Any, sent: bytes, code: ErrorCode) -> None:
    peer = await connect()
    peer.greet()
    peer.send(sent)
    assert await peer.reset(1) == code
    assert await peer.ask(3) == b"hello"


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        PREFACE + frames.ping(bytes(8), ack=False),
        PREFACE + frames.settings_ack(),
        PREFACE + headers(1, ASK),
    ],
)
async def test_what_is_no_greeting(connect: Any, first: bytes) -> None:
    peer = await connect()
    peer.send(first)
    assert await peer.fault() == PROTOCOL


async def test_one_byte_at_a_time(connect: Any) -> None:
    peer = await connect()
    whole = PREFACE + frames.settings({}) + headers(1, ASK) + data_header(1, 5, END_STREAM) + b"hello"
    for byte in whole:
        peer.send(bytes((byte,)))
        await peer._writer.drain()
    assert await peer.answer(1) == b"hello"


async def test_what_is_allowed(connect: Any) -> None:
    peer = await connect()
    peer.greet({Setting.HEADER_TABLE_SIZE: 0, Setting.ENABLE_PUSH: 0})
    peer.send(
        raw(99, 255, 12, b"unknown frames are ignored"),
        frames.settings({Setting.MAX_FRAME_SIZE: 1 << 20}),
        raw(Type.SETTINGS, 0, 0, b"\x12\x34\0\0\0\1"),
        raw(Type.PRIORITY, 0, 9, b"\0\0\0\1\x10"),
        # padding, priority, continuation, trailers
        raw(Type.HEADERS, frames.PADDED | frames.PRIORITY_FLAG, 1, b"\3\0\0\0\0\x10" + ASK[:9] + b"pad"),
        raw(Type.CONTINUATION, 0, 1, ASK[9:]),
        raw(Type.CONTINUATION, frames.END_HEADERS, 1),
        raw(Type.DATA, frames.PADDED, 1, b"\4hello" + bytes(4)),
        headers(1, encode_block([(b"checksum", b"1")]), END_STREAM),
        # a stream that has ended, or was reset, may still be spoken of
        headers(3, WAIT),
        frames.reset_stream(3, ErrorCode.CANCEL),
        data_header(3, 1) + b"x",
        frames.window_update(3, 1),
        frames.reset_stream(3, ErrorCode.CANCEL),
        raw(Type.RST_STREAM, 0, 3, b"\xff\xff\xff\xff"),
    )
    assert await peer.answer(1) == b"hello"
    assert await peer.ask(5) == b"hello"


async def test_long_bodies_in_frames_of_all_kinds(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    bodies, sent = {1: b"", 3: b""}, headers(1, ASK) + headers(3, ASK)
    for round_, size in enumerate((9000, 4096, 16384, 5000, 1, 8000, 20000)):
        for number in bodies:
            for part in range(round_ + 1):
                data = bytes((number, round_, part)) * (size // 3 + 1)
                bodies[number] += data
                sent += data_header(number, len(data)) + data
        for number in bodies:
            bodies[number] += b"padded"
            sent += raw(Type.DATA, frames.PADDED, number, b"\3padded" + bytes(3)) + data_header(number, 0)
            sent += data_header(number, 5000) + bytes(5000) + data_header(number, 4) + b"here"
            bodies[number] += bytes(5000) + b"here"
    bodies[3] += bytes(6000)
    sent += data_header(1, 0, END_STREAM) + data_header(3, 5000) + bytes(5000) + data_header(3, 1000, 1) + bytes(1000)
    peer.send(sent)
    found = dict.fromkeys(bodies, b"")
    while bodies:
        kind, flags, number, payload = await peer.frame()
        if kind == Type.DATA and payload:
            found[number] += payload
            peer.send(frames.window_update(0, len(payload)), frames.window_update(number, len(payload)))
        if flags & END_STREAM and kind in (Type.DATA, Type.HEADERS):
            assert found[number] == bodies.pop(number)


async def test_padding_does_not_use_up_a_window(connect: Any) -> None:
    peer = await connect()
    peer.greet()
    peer.send(headers(1, ASK))
    padded = raw(Type.DATA, frames.PADDED, 1, b"\xff" + b"x" * 1000 + bytes(255))
    for _ in range(900):
        peer.send(padded)
    peer.send(data_header(1, 0, END_STREAM))
    assert len(await peer.answer(1)) == 900_000
