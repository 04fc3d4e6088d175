"""One connection of a server: what the peer sends, judged by RFC 9113 and by our limits.

The peer is a stranger. Every list that it can lengthen is bounded, every time that it can take too, and whatever costs
us without bringing a request nearer its answer is paid for from its :class:`Patience`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ErrorCode, Http2Error, Setting, Type
from ensconce.serving.http2.headers import HeaderDecoder, Request
from ensconce.serving.http2.lifetime import CONNECTION_WINDOW, DRAIN_PING, Lifetime, Server
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.memory import Memory
from ensconce.serving.http2.stream import Stream

__all__ = ["Accept", "Connection"]

Accept = Callable[["Connection", int, Request], Stream]

# What a frame costs of the peer's patience.
_CHEAP: Final = 1
_DEAR: Final = 10
_SHORT: Final = 32 * 1024
# A frame of DATA without flags that is as long as this is seldom the only one of its body.
_LONG: Final = 4 * 1024


class Connection(Lifetime):
    """Made by :class:`Http2Server` for every connection; drives streams that its ``accept`` makes.

    Attributes:
        handlers: what takes a frame, by its type.
    """

    handlers: ClassVar[tuple[Callable[[Any, int, int, Any], None], ...]]

    def __init__(self, server: Server, accept: Accept, limits: Http2Limits, memory: Memory, buffer: memoryview) -> None:
        """Begin before anything has arrived.

        Args:
            server: told of the connection's beginning and end.
            accept: makes a stream for this connection, a number and a request.
            limits: of this connection.
            memory: of all connections.
            buffer: of all connections, longer than the longest frame; what arrives lies there while it is judged. One
                is enough: between :meth:`get_buffer` and :meth:`buffer_updated` the event loop does nothing else.
        """
        super().__init__(server, limits, memory)
        self._accept = accept
        self._headers = HeaderDecoder(limits.header_bytes)
        self._buffer = buffer
        # What has arrived and is no whole frame, and how much of it would be one.
        self._rest = bytearray()
        self._wanted = 0
        self._is_greeted = False
        self._receive_window = CONNECTION_WINDOW
        # A header block that is not whole yet: its parts, its stream and the flags of its first frame.
        self._block: list[bytes] = []
        self._block_stream = self._block_flags = self._block_bytes = 0

    def get_buffer(self, _hint: int) -> memoryview:
        """Where to put what arrives: behind what is here already."""
        return self._buffer[len(self._rest) :] if self._rest else self._buffer

    def buffer_updated(self, size: int) -> None:
        """Judge and answer what has arrived, with one write."""
        if self._closing_at is not None:
            return
        buffer, rest = self._buffer, self._rest
        if rest:
            held = len(rest)
            size += held
            if size < self._wanted:
                rest += buffer[held:size]
                return
            buffer[:held] = rest
            rest.clear()
        # What is short has many small frames if any, and they are quicker to read from bytes.
        data = buffer[:size].tobytes() if size <= _SHORT else buffer[:size]
        output = self.output
        output.is_held = True
        try:
            self._take(data)
        except Http2Error as fault:
            self.fail(fault.code, fault.problem)
        finally:
            output.is_held = False
        output.flush()

    def _take(self, data: bytes | memoryview) -> None:
        at = 0
        if not self._is_greeted:
            preface, start = frames.PREFACE, bytes(data[: len(frames.PREFACE)])
            if start != preface:
                if not preface.startswith(start):
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
                self._keep(start, len(preface))
                return
            self._is_greeted, at = True, len(preface)
        longest, size, handlers = self._limits.frame_bytes, len(data), self.handlers
        while True:
            some, at = frames.read_frames(data, at, longest, long=_LONG)
            for kind, flags, number, payload in some:
                if self._block and kind != Type.CONTINUATION:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
                if not self._has_settings and (kind != Type.SETTINGS or flags & frames.ACK):
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
                if kind < len(handlers):
                    handlers[kind](self, flags, number, payload)
                else:
                    self._pay(_CHEAP)  # section 5.5: unknown frames are ignored
                if self._closing_at is not None:
                    return
            if not some or at == size:
                break
            kind, flags, number, payload = some[-1]
            if len(payload) >= _LONG and not kind and not flags:
                parts, total, ended, at = frames.read_body(data, at, longest, number)
                if parts:
                    self._on_parts(number, parts, total, total, ended=ended)
                    if self._closing_at is not None:
                        return
        if at < size:
            wanted = frames.HEADER_SIZE
            if size - at >= wanted:
                wanted += int.from_bytes(data[at : at + 3])
            self._keep(data[at:], wanted)

    def _keep(self, data: bytes | memoryview, wanted: int) -> None:
        """Wait until this, and what comes behind it, are so many bytes: a frame, or its header."""
        self._rest += data
        self._wanted = wanted

    # Frames, by type.

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & frames.PADDED:
            payload = frames.unpad(payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is cut off")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, number, payload)
        else:
            self._block, self._block_stream, self._block_flags = [payload], number, flags
            self._block_bytes, self._block_since = len(payload), self._loop.time()

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block or number != self._block_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        self._block.append(payload)
        self._block_bytes += len(payload)
        if len(self._block) > 1 + self._limits.continuations or self._block_bytes > self._limits.header_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "a header block has no end")
        if flags & frames.END_HEADERS:
            block = b"".join(self._block)
            self._block.clear()
            self._block_since = None
            self._on_block(self._block_flags, number, block)

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        if len(block) > self._limits.header_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "the header fields are too long")
        if number <= self._last_stream:
            self._on_trailers(flags, number, block)
            return
        if not number & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        request = self._headers.request(block)
        self._last_stream = number
        if self._final_stream is not None:
            return
        if len(self._streams) >= self._limits.streams:
            self._refuse(number, ErrorCode.REFUSED_STREAM)
            return
        ended = bool(flags & frames.END_STREAM)
        if request is None or (ended and request.content_length > 0):
            self._refuse(number, ErrorCode.PROTOCOL_ERROR)
            return
        if not self.memory.take(self, request.size):
            self._refuse(number, ErrorCode.ENHANCE_YOUR_CALM)
            return
        stream = self._accept(self, number, request)
        stream.send_window = self.output.initial_window
        stream.receive_window = self._limits.window_bytes
        stream.remote_done = ended
        stream.started = self._loop.time()
        self._streams[number] = stream
        stream.on_request(ended=ended)

    def _on_trailers(self, flags: int, number: int, block: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None and number not in self._reset:
            code = ErrorCode.STREAM_CLOSED if number in self._ended else ErrorCode.PROTOCOL_ERROR
            raise Http2Error(code, "a header block for a stream that has ended")
        is_good = self._headers.trailers(block)
        if stream is None:
            self._pay(_CHEAP)
        elif stream.remote_done:
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.STREAM_CLOSED)
        elif not is_good or not flags & frames.END_STREAM:
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            self._on_body(stream, (), 0, ended=True)

    def _on_data(self, flags: int, number: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        if flags & frames.PADDED:
            payload = frames.unpad(payload)
        self._on_parts(number, (payload,), len(payload), size, ended=bool(flags & frames.END_STREAM))

    def _on_parts(
        self, number: int, parts: Sequence[bytes | memoryview], length: int, size: int, *, ended: bool
    ) -> None:
        """A part of a body, in parts: ``length`` bytes, and with their padding ``size``."""
        self._receive_window -= size
        if self._receive_window < CONNECTION_WINDOW // 2:
            if self._receive_window < 0:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
            self.output.put(frames.window_update(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW
        stream = self._streams.get(number)
        if stream is None:
            self._on_stray_data(number)
            return
        if not length and not ended:
            self._pay(_CHEAP)
        if stream.remote_done:
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.STREAM_CLOSED)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        if size > length and not ended:
            stream.receive_window += size - length
            self.output.put(frames.window_update(number, size - length))
        self._on_body(stream, parts, length, ended=ended)

    def _on_body(self, stream: Stream, parts: Sequence[bytes | memoryview], size: int, *, ended: bool) -> None:
        stream.total += size
        told = stream.request.content_length
        if told >= 0 and (stream.total > told or (ended and stream.total != told)):
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.remote_done = ended
        stream.received += size
        more = stream.received - stream.charged
        if more > 0:
            if not self.memory.take(self, more):
                stream.on_overflow()
                return
            stream.charged = stream.received
        stream.on_data(parts, ended=ended)

    def _on_stray_data(self, number: int) -> None:
        if not 0 < number <= self._last_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "DATA for a stream that is not open")
        if number in self._reset:
            self._pay(_CHEAP)
        elif self._final_stream is None or number <= self._final_stream:
            self._refuse(number, ErrorCode.STREAM_CLOSED)

    def _on_priority(self, _flags: int, number: int, payload: bytes) -> None:
        self._pay(_CHEAP)
        if number == 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY for no stream")
        if len(payload) != 5:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a PRIORITY frame has five bytes")

    def _on_reset(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a RST_STREAM frame has four bytes")
        if not 0 < number <= self._last_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "RST_STREAM for a stream that is not open")
        self._pay(_DEAR)
        stream = self._streams.get(number)
        if stream is not None:
            self._reset.append(number)
            self._drop(stream)
            stream.on_reset(_error_code(payload))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS for a stream")
        if flags & frames.ACK:
            if payload:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS is empty")
            self._pay(_CHEAP)
            return
        self._pay(_DEAR)
        values = frames.read_settings(payload)
        self._has_settings = True
        if Setting.INITIAL_WINDOW_SIZE in values:
            self.output.set_initial_window(values[Setting.INITIAL_WINDOW_SIZE], list(self._streams.values()))
        if Setting.MAX_FRAME_SIZE in values:
            self.output.set_frame_bytes(values[Setting.MAX_FRAME_SIZE])
        self.output.put(frames.settings_ack())

    def _on_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a PING frame has eight bytes")
        self._pay(_CHEAP)
        if not flags & frames.ACK:
            self.output.put(frames.ping(payload, ack=True))
        elif payload == DRAIN_PING and self._announced_at is not None:
            self._stop_accepting()

    def _on_go_away(self, _flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY frame is cut off")
        self._pay(_DEAR)
        self.drain(self._limits.grace)
        self._stop_accepting()

    def _on_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame has four bytes")
        self._pay(_CHEAP)
        increment = int.from_bytes(payload) & frames.LARGEST_WINDOW
        if number == 0:
            if increment == 0:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
            self.output.open_connection(increment)
            return
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last_stream:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that is not open")
        elif increment == 0:
            self._kill(stream, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window + increment > frames.LARGEST_WINDOW:
            self._kill(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self.output.open_stream(stream, increment)


def _error_code(payload: bytes) -> ErrorCode:
    try:
        return ErrorCode(int.from_bytes(payload))
    except ValueError:
        return ErrorCode.INTERNAL_ERROR  # section 7: unknown codes are nothing special


Connection.handlers = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_reset,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_go_away,
    Connection._on_window_update,
    Connection._on_continuation,
)
