"""The client's end of HTTP/2, to replicas that have proved what they are (RFC 9113)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

from ensconce.serving.connections import ConnectionServer
from ensconce.serving.http2 import frames
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.frames import ErrorCode, Http2Error, Setting, Type
from ensconce.serving.http2.headers import Request
from ensconce.serving.http2.lifetime import Lifetime
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.memory import Memory
from ensconce.serving.http2.stream import Stream

if TYPE_CHECKING:
    from ensconce.proxy.grpc import ForwardedCall

__all__ = ["BackConnection", "BackStream", "Backs"]

_READ_BYTES: Final = 256 * 1024
_MOST: Final = 4096
# A replica says when a connection has lived long enough, and what it does not want to hold.
_LIMITS: Final = Http2Limits(connections=_MOST, header_bytes=15 * 1024, age=math.inf, idle=math.inf)
_NO_REQUEST: Final = Request(b"", b"", b"", b"", {})


class BackStream(Stream):
    """A call at a replica; what comes goes to the client's call, and is let come as that is taken."""

    __slots__ = ("call", "has_begun")

    connection: BackConnection

    def __init__(self, connection: BackConnection, number: int, call: ForwardedCall) -> None:
        """Made by :meth:`BackConnection.begin`."""
        super().__init__(connection, number, _NO_REQUEST)
        self.call = call
        self.has_begun = False
        # How long a call may take is between the client and the replica.
        self.patient = True

    def on_fields(self, fields: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """A header block: the answer's beginning, or its trailers."""
        if not self.has_begun and fields and fields[0][0] == b":status" and fields[0][1][:1] == b"1":
            return  # RFC 9113, 8.1: an interim answer
        if self.has_begun and not ended:
            self.connection.broken(self)
            return
        begun, self.has_begun = self.has_begun, True
        if begun:
            self.call.on_trailers([(name, value) for name, value in fields if name[:1] != b":"])
        else:
            self.call.on_head(fields, ended=ended)

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        """Some of the answer."""
        if not self.has_begun:
            self.connection.broken(self)
            return
        self.call.on_answer(b"".join(parts))
        if ended:
            self.call.on_trailers([])

    def on_reset(self, code: ErrorCode) -> None:
        """The replica ends the call."""
        self.call.on_lost(code, is_cut=self.connection.is_lost)

    def on_overflow(self) -> None:
        """There is no memory for the answer."""
        self.connection.reset(self, ErrorCode.ENHANCE_YOUR_CALM)
        self.call.on_lost(ErrorCode.ENHANCE_YOUR_CALM, is_cut=False)

    def sent(self, amount: int) -> None:
        """Bytes of the request are on their way: as many more may come."""
        super().sent(amount)
        self.call.passed_on(amount)


class BackConnection(Connection):
    """One connection to a replica, with the roles of :class:`Connection` turned.

    Attributes:
        settled: done when the replica's settings are here; cancelled when the connection ends before.
        is_lost: it has ended.
        is_leaving: the replica takes no more calls on it.
        on_leaving: called when that becomes true.
    """

    def __init__(self, server: Backs, memory: Memory, buffer: memoryview) -> None:
        """Begin before it is connected."""
        super().__init__(server, _refuse_streams, _LIMITS, memory, buffer)
        self.settled: asyncio.Future[None] = self._loop.create_future()
        self.is_lost = self.is_leaving = False
        self.on_leaving: Callable[[], object] = lambda: None
        self._is_greeted = True
        self._last_stream = -1
        self._most_streams = _LIMITS.streams
        self._waiting: list[asyncio.Future[None]] = []

    # Calls.

    @property
    def is_open(self) -> bool:
        """Calls may begin here."""
        return not self.is_leaving and not self.is_lost and self._closing_at is None and self._has_settings

    @property
    def has_room(self) -> bool:
        """The replica lets one more call begin now."""
        return len(self._streams) < self._most_streams

    async def wait_for_room(self) -> None:
        """Until :attr:`has_room` may have become true, or :attr:`is_open` false."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def begin(self, call: ForwardedCall, head: bytes) -> BackStream:
        """A call, with its header block sent; the connection is open and has room."""
        number = self._last_stream = self._last_stream + 2
        if number + 2 > frames.LARGEST_WINDOW:
            self.leave()
        stream = BackStream(self, number, call)
        stream.send_window = self.output.initial_window
        stream.receive_window = self._limits.window_bytes
        self._streams[number] = stream
        self.output.send_head(stream, head)
        return stream

    def broken(self, stream: BackStream) -> None:
        """The answer is none (section 8.1)."""
        self._kill(stream, ErrorCode.PROTOCOL_ERROR)

    # What a client does otherwise than a server.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; the preface goes before everything (section 3.4)."""
        cast("asyncio.Transport", transport).write(frames.PREFACE)
        super().connection_made(transport)

    def _own_settings(self) -> dict[Setting, int]:
        values = super()._own_settings()
        del values[Setting.MAX_CONCURRENT_STREAMS]
        return {Setting.ENABLE_PUSH: 0, **values}

    def connection_lost(self, exception: Exception | None) -> None:
        """It has ended, and what was under way with it."""
        self.is_lost = True
        self.settled.cancel()
        super().connection_lost(exception)
        self._wake()

    def fail(self, code: ErrorCode, text: str) -> None:
        """The replica broke a rule: for its calls the connection is lost."""
        self.is_lost = True
        super().fail(code, text)

    def abort(self) -> None:
        """End it at once, with its calls."""
        self.is_lost = True
        super().abort()

    def pause_writing(self) -> None:
        """Go on reading: the replica may have to be rid of answers before it takes what is asked."""
        self.output.pause()

    def resume_writing(self) -> None:
        """The replica takes what was written."""
        self.output.resume()

    def _pay(self, amount: int) -> None:
        """Whoever was accepted needs no patience: its code is known."""

    def _finished(self, stream: Stream) -> bool:
        """The whole request is sent."""
        stream.local_done = True
        if stream.remote_done:
            self._drop(stream)
        return bool(self._streams)

    def _drop(self, stream: Stream) -> None:
        super()._drop(stream)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        if len(block) > self._limits.header_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "the header fields are too long")
        fields = self._headers.fields(block)
        if not 0 < number <= self._last_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS for a stream that was not opened")
        stream = self._streams.get(number)
        if isinstance(stream, BackStream) and not stream.remote_done:
            stream.remote_done = bool(flags & frames.END_STREAM)
            stream.on_fields(fields, ended=stream.remote_done)
            self._settle(stream)

    def _on_body(self, stream: Stream, parts: Sequence[bytes | memoryview], size: int, *, ended: bool) -> None:
        super()._on_body(stream, parts, size, ended=ended)
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Nothing is left of a stream whose both sides have ended; nobody wants the rest of an answered request."""
        if stream.remote_done and not stream.is_closed:
            if stream.local_done:
                self._drop(stream)
            else:
                self.reset(stream, ErrorCode.NO_ERROR)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        super()._on_settings(flags, number, payload)
        if not flags & frames.ACK:
            most = frames.read_settings(payload).get(Setting.MAX_CONCURRENT_STREAMS, self._most_streams)
            self._most_streams = min(most, _LIMITS.streams)
            if not self.settled.done():
                self.settled.set_result(None)
            self._wake()

    def _on_go_away(self, _flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY frame is cut off")
        last = int.from_bytes(payload[:4]) & frames.LARGEST_WINDOW
        self.leave()
        for stream in [stream for each, stream in self._streams.items() if each > last]:
            self._drop(stream)
            stream.on_reset(ErrorCode.REFUSED_STREAM)

    def leave(self) -> None:
        """Begin no more calls, and close behind the last."""
        if not self.is_leaving:
            self.is_leaving = True
            self._final_stream = frames.LARGEST_WINDOW
            self._wake()
            self.on_leaving()
        if not self._streams:
            self._close()


def _refuse_streams(_connection: Connection, _number: int, _request: Request) -> Stream:
    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a server cannot open streams")


_OWN: Final = {Type.SETTINGS: BackConnection._on_settings, Type.GOAWAY: BackConnection._on_go_away}
BackConnection.handlers = tuple(_OWN.get(Type(kind), each) for kind, each in enumerate(Connection.handlers))


class Backs(ConnectionServer[Lifetime]):
    """All connections to replicas: their clock, and their end. It listens nowhere."""

    def __init__(self) -> None:
        """Prepare, within the event loop that drives them."""
        super().__init__(most=_MOST, handshake=_LIMITS.handshake, age=math.inf)
        self._memory = Memory(server_bytes=_LIMITS.server_bytes, connection_bytes=_LIMITS.connection_bytes)
        self._buffer = memoryview(bytearray(_READ_BYTES + _LIMITS.frame_bytes))

    def connection(self) -> BackConnection:
        """Make a connection."""
        return BackConnection(self, self._memory, self._buffer)

    def drain(self, connection: Lifetime, _grace: float) -> None:
        """Close it behind its last call."""
        assert isinstance(connection, BackConnection)
        connection.leave()
