"""What a client sends on a connection of HTTP/2, gRPC in it: judged by the rules, answered within bounds.

Whatever comes, and in however many pieces, the server ends it in good order or answers it: what it writes is whole
frames that a client may get, in the order in which a client may get them. Oracle: hpack for the header blocks that we
write, and the same bytes in other pieces, which must come to the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hpack import Decoder

from ensconce.serving.grpc.call import Front, Message, Note, Unary, UnaryCall
from ensconce.serving.http2 import frames
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.frames import PREFACE, ErrorCode, Type
from ensconce.serving.http2.headers import Request, encode_block
from ensconce.serving.http2.lifetime import Lifetime
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.memory import Memory
from fuzz.target import Target, holds

__all__ = ["TARGET", "check"]

_BYTES = 64 * 1024
_BUFFER = memoryview(bytearray(_BYTES))
_LIMITS = Http2Limits(streams=8, frame_bytes=16_384, window_bytes=16_384, connection_bytes=_BYTES, server_bytes=_BYTES)
_PATH = b"/service/echo"


class _Transport(asyncio.Transport):
    """Keeps what is written; takes all of it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: Any) -> None:
        holds(not self.is_closed, "written after the end")
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It has none."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        """It reads nothing."""

    def resume_reading(self) -> None:
        """It reads nothing."""


class _Server:
    def joined(self, _connection: Lifetime) -> bool:
        """There is room."""
        return True

    def left(self, _connection: Lifetime) -> None:
        """Nobody counts."""


async def _echo(data: Message, _note: Note) -> bytes:
    return bytes(data)


_THREADS = ThreadPoolExecutor(1)
_FRONT = Front({_PATH: Unary(_echo)}, 32 * 1024, 1 << 20, _THREADS)


def check(data: bytes) -> bool:
    """Send it in one piece, and again in many."""
    loop = asyncio.new_event_loop()
    try:
        whole = loop.run_until_complete(_converse([data], turns=0))
        size = 1 + len(data) % 37
        parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        pieces = loop.run_until_complete(_converse(parts, turns=0))
        loop.run_until_complete(_converse(parts, turns=3))
    finally:
        loop.close()
    # Handlers had no turn in between, so nothing depends on when something came.
    holds(whole == pieces, "in other pieces it means something else")
    return any(kind == Type.HEADERS for kind, *_ in whole)


async def _converse(parts: list[bytes], turns: int) -> list[frames.Frame]:
    memory = Memory(server_bytes=_BYTES, connection_bytes=_BYTES)

    def accept(connection: Connection, number: int, request: Request) -> UnaryCall:
        return UnaryCall(_FRONT, connection, number, request, _FRONT.methods.get(request.path))  # type: ignore[arg-type]  # there are no streaming ones

    connection, transport = Connection(_Server(), accept, _LIMITS, memory, _BUFFER), _Transport()
    connection.connection_made(transport)
    for part in parts:
        if transport.is_closed:
            break
        connection.get_buffer(-1)[: len(part)] = part
        connection.buffer_updated(len(part))
        for _ in range(turns):
            await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    holds(memory.free == _BYTES - connection.held, "bytes were lost from the account")
    connection.connection_lost(None)
    holds(memory.free == _BYTES and connection.held == 0, "bytes were not given back")
    return _judge(bytes(transport.written))


def _judge(written: bytes) -> list[frames.Frame]:
    """The frames that were written, once it is clear that a client may get them."""
    told, end = frames.read_frames(written, 0, frames.LARGEST_FRAME)
    holds(end == len(written), "a frame that is not whole was written")
    decoder, ended, begun = Decoder(), set(), set()
    for kind, flags, number, payload in told:
        if kind in (Type.HEADERS, Type.DATA):
            holds(number % 2 == 1 and number not in ended, "an answer to no stream, or after its end")
            holds(kind == Type.HEADERS or number in begun, "a body without a head")
            begun.add(number)
        if kind == Type.HEADERS:
            list(decoder.decode(payload))
        if kind == Type.RST_STREAM or (kind in (Type.HEADERS, Type.DATA) and flags & frames.END_STREAM):
            ended.add(number)
        holds(kind != Type.PUSH_PROMISE and len(payload) <= 65536, "what no client may get")
    return told


def _request(body: bytes = b"\0\0\0\0\2hi", *more: tuple[bytes, bytes], number: int = 1) -> bytes:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", _PATH), (b"content-type", b"application/grpc")]
    return (
        frames.headers(number, encode_block([*fields, *more]))
        + frames.data_header(number, len(body), frames.END_STREAM)
        + body
    )


def seeds() -> dict[str, bytes]:
    """Requests, and each kind of frame."""
    hello = PREFACE + frames.settings({})
    indexed = b"\x83\x86\x44" + bytes((len(_PATH),)) + _PATH + b"\x5f\x10application/grpc"
    return {
        "good-request": hello + _request(),
        "good-two": hello + _request() + _request(number=3) + frames.ping(bytes(8), ack=False),
        "good-refused": hello
        + frames.headers(1, encode_block([(b":method", b"GET"), (b":scheme", b"x"), (b":path", b"/")]), 1),
        "good-timeout": hello + _request(b"\1\0\0\0\0", (b"grpc-timeout", b"1S"), (b"grpc-encoding", b"gzip")),
        "good-indexed": hello + frames.headers(1, indexed, 1) + frames.headers(3, b"\x83\x86\xbf\xbe", 1),
        "good-windows": PREFACE
        + frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 3})
        + _request()
        + frames.window_update(1, 9)
        + frames.window_update(0, 9),
        "good-reset": hello + _request() + frames.headers(3, indexed) + frames.reset_stream(3, ErrorCode.CANCEL),
        "good-continued": hello + b"\0\0\2\1\1\0\0\0\1" + indexed[:2] + b"\0\0\x21\x09\4\0\0\0\1" + indexed[2:],
        "goaway": hello + frames.go_away(0, ErrorCode.NO_ERROR),
        "priority": hello + b"\0\0\5\2\0\0\0\0\1\0\0\0\0\1",
        "http-1": b"GET / HTTP/1.1\r\n\r\n",
    }


def _bend(data: bytes, rng: Any, havoc: Callable[[bytes], bytes]) -> bytes:
    """Bend, repeat, leave out or exchange frames; the preface stays in most cases."""
    if not data.startswith(PREFACE) or rng.random() < 0.05:
        return havoc(data)
    try:
        told, end = frames.read_frames(data, len(PREFACE), frames.LARGEST_FRAME)
    except frames.Http2Error:
        return havoc(data)
    if not told:
        return havoc(data)
    at = rng.randrange(len(told))
    kind, flags, number, payload = told[at]
    match rng.randrange(6):
        case 0:
            payload = havoc(payload)
        case 1:
            flags ^= 1 << rng.randrange(8)
        case 2:
            number = rng.choice((0, 1, 2, 3, 5, number + 2))
        case 3:
            kind = rng.randrange(11)
        case 4:
            told.insert(rng.randrange(len(told) + 1), told[at])
        case _:
            other = rng.randrange(len(told))
            told[at], told[other] = told[other], told[at]
            kind, flags, number, payload = told[at]
    told[at] = (kind, flags, number, payload)
    return (
        PREFACE
        + b"".join(len(p).to_bytes(3) + bytes((k, f)) + n.to_bytes(4) + p for k, f, n, p in told if len(p) < 1 << 24)
        + data[end:]
    )


TARGET = Target("http2", check, seeds, _bend, max_size=8192, words=(PREFACE, b"\x82", b"\x83", b"\x3f\xe1\x1f"))
