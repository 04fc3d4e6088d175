from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from ensconce.serving.http2 import frames
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.frames import PREFACE, ErrorCode, Frame, Setting, Type
from ensconce.serving.http2.headers import Request, encode_block
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.server import Http2Server
from ensconce.serving.http2.stream import Stream

HEAD = encode_block([(b":status", b"200")])
END = encode_block([(b"done", b"yes")])
ASK = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo"), (b"te", b"trailers")])


def fields(path: bytes = b"/echo", *more: tuple[bytes, bytes]) -> bytes:
    return encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), *more])


class Echo(Stream):
    """Answers with the body: at once (/echo), with as much as the path's number says, or never (/wait)."""

    __slots__ = ("parts",)

    def on_request(self, *, ended: bool) -> None:
        self.parts: list[bytes] = []
        if ended:
            self.reply()

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        is_first = not self.parts
        self.parts += map(bytes, parts)
        if self.request.path == b"/long" and is_first:
            self.expect(int.from_bytes(self.parts[0][:4]))
        if ended:
            self.reply()

    def reply(self) -> None:
        body = b"".join(self.parts)
        if self.request.path == b"/wait":
            return
        if self.request.path.startswith(b"/size/"):
            body = bytes(int(self.request.path[6:]))
        self.connection.output.answer(self, HEAD, body[:5], body[5:], END)

    def on_reset(self, code: ErrorCode) -> None:
        RESETS.append((self.id, code))


RESETS: list[tuple[int, ErrorCode]] = []


class Peer:
    """A client that sends what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    def greet(self, settings: dict[Setting, int] | None = None) -> None:
        self.send(PREFACE, frames.settings(settings or {}))

    async def frame(self) -> Frame:
        header = await asyncio.wait_for(self._reader.readexactly(9), 10)
        length = int.from_bytes(header[:3])
        payload = await asyncio.wait_for(self._reader.readexactly(length), 10)
        return header[3], header[4], int.from_bytes(header[5:9]), payload

    async def until(self, kind: Type, stream: int | None = None) -> Frame:
        while True:
            frame = await self.frame()
            if frame[0] == kind and (stream is None or frame[2] == stream):
                return frame

    async def fault(self) -> ErrorCode:
        """The code with which the server ends the connection, once it has ended it."""
        while True:
            frame = await self.frame()
            if frame[0] == Type.PING and not frame[1] & frames.ACK:
                self.send(frames.ping(frame[3], ack=True))
            # The first of two says only that the end is near.
            if frame[0] == Type.GOAWAY and frame[3][:4] != frames.LARGEST_WINDOW.to_bytes(4):
                break
        await asyncio.wait_for(self.rest(), 10)
        return ErrorCode(int.from_bytes(frame[3][4:8]))

    async def reset(self, stream: int) -> ErrorCode:
        return ErrorCode(int.from_bytes((await self.until(Type.RST_STREAM, stream))[3]))

    async def rest(self) -> bytes:
        """Whatever comes before the end."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    async def answer(self, stream: int) -> bytes:
        body = b""
        while True:
            kind, flags, number, payload = await self.frame()
            if number != stream:
                continue
            if kind == Type.RST_STREAM:
                raise AssertionError(f"reset: {payload!r}")
            if kind == Type.DATA:
                body += payload
                self.send(frames.window_update(0, max(1, len(payload))))
                self.send(frames.window_update(stream, max(1, len(payload))))
            if flags & frames.END_STREAM:
                return body

    async def ask(self, stream: int, body: bytes = b"hello") -> bytes:
        self.send(frames.headers(stream, ASK), frames.data_header(stream, len(body), frames.END_STREAM), body)
        return await self.answer(stream)

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        self._writer.close()


Connect = Callable[..., Coroutine[Any, Any, Peer]]


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Coroutine[Any, Any, tuple[Http2Server, int]]]]:
    servers: list[Http2Server] = []

    async def begin(**limits: Any) -> tuple[Http2Server, int]:
        def accept(connection: Connection, number: int, request: Request) -> Stream:
            return Echo(connection, number, request)

        server = Http2Server(accept, Http2Limits(**limits))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        await server.listen(listener, None)
        servers.append(server)
        return server, listener.getsockname()[1]

    RESETS.clear()
    yield begin
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def connect(start: Any) -> AsyncIterator[Connect]:
    """A peer of a fresh server with these limits, or of one that is there."""
    peers: list[Peer] = []

    async def begin(port: int | None = None, **limits: Any) -> Peer:
        if port is None:
            _, port = await start(**limits)
        peers.append(Peer(*await asyncio.open_connection("127.0.0.1", port)))
        return peers[-1]

    yield begin
    for peer in peers:
        peer.close()
