"""One connection of a server: what the peer sends, judged by RFC 9113 and by our limits.

The peer is a stranger. Every list that it can lengthen is bounded, every time that it can take too, and whatever costs
us without bringing a request nearer its answer is paid for from its :class:`Patience`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ErrorCode, Http2Error, Setting, Type
from ensconce.serving.http2.headers import HeaderDecoder, Request
from ensconce.serving.http2.limits import ConnectionLimits, Patience
from ensconce.serving.http2.memory import Memory
from ensconce.serving.http2.output import Output
from ensconce.serving.http2.stream import Stream

if TYPE_CHECKING:
    from ensconce.serving.http2.server import Http2Server

__all__ = ["Accept", "Connection"]

Accept = Callable[["Connection", int, Request], Stream]

_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
_DEFAULT_WINDOW: Final = 65_535
_REMEMBERED: Final = 256
_DRAIN_PING: Final = b"last one"
_LINGER: Final = 1.0
"""Seconds for the peer to read why it was disconnected."""
_PING_TIME: Final = 5.0
# What a frame costs of the peer's patience, and what an answer earns.
_CHEAP: Final = 1
_DEAR: Final = 10
_EARNED: Final = 12


class Connection(asyncio.Protocol):
    """Made by :class:`Http2Server` for every connection; drives streams that its ``accept`` makes."""

    output: Output

    def __init__(self, server: Http2Server, accept: Accept, limits: ConnectionLimits, memory: Memory) -> None:
        self._server, self._accept, self._limits, self.memory = server, accept, limits, memory
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.held = 0
        """Bytes of the account of memory that this connection holds."""
        self._streams: dict[int, Stream] = {}
        self._headers = HeaderDecoder(limits.header_bytes)
        self._patience = Patience(now)
        self._chunks: list[bytes] = []
        self._chunk_bytes = self._wanted = 0
        self._is_greeted = self._has_settings = False
        self._block: list[bytes] | None = None
        self._block_stream = self._block_flags = self._block_bytes = 0
        self._last_stream = 0
        # Streams that ended by a reset, for which frames may still be under way; and some that ended otherwise.
        self._reset: deque[int] = deque(maxlen=_REMEMBERED)
        self._ended: deque[int] = deque(maxlen=_REMEMBERED)
        self._receive_window = _CONNECTION_WINDOW
        self._since_made = self._idle_since = self._block_since = now
        self._drain_until: float | None = None
        self._announced_at: float | None = None
        self._final_stream: int | None = None
        self._closing_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done, if there is one."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.output = Output(transport, self._limits.write_bytes, self._finished)
        if not self._server.joined(self):
            self.output.close()
            transport.abort()
            return
        self._since_made = self._idle_since = self._loop.time()
        limits = self._limits
        own = {
            Setting.MAX_CONCURRENT_STREAMS: limits.streams,
            Setting.INITIAL_WINDOW_SIZE: limits.window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        }
        self.output.put(frames.settings(own) + frames.window_update(0, _CONNECTION_WINDOW - _DEFAULT_WINDOW))

    def connection_lost(self, _exception: Exception | None) -> None:
        """It is over, whoever ended it."""
        self.output.close()
        self._server.left(self)
        for stream in list(self._streams.values()):
            self._drop(stream)
            stream.on_reset(ErrorCode.CANCEL)

    def pause_writing(self) -> None:
        """Nothing more is read from a peer that takes nothing: what it asks for would only pile up here."""
        self.output.pause()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer takes what was written."""
        self._transport.resume_reading()
        self.output.resume()

    def data_received(self, data: bytes) -> None:
        """Judge and answer what has arrived, with one write."""
        if self._closing_at is not None:
            return
        if self._chunks:
            self._chunks.append(data)
            self._chunk_bytes += len(data)
            if self._chunk_bytes < self._wanted:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        output = self.output
        output.is_held = True
        try:
            self._take(data)
        except Http2Error as fault:
            self.fail(fault.code, fault.problem)
        finally:
            output.is_held = False
        output.flush()

    def _take(self, data: bytes) -> None:
        at = 0
        if not self._is_greeted:
            preface = frames.PREFACE
            if not data.startswith(preface):
                if len(data) >= len(preface) or not preface.startswith(data):
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
                self._keep(data, len(preface))
                return
            self._is_greeted, at = True, len(preface)
        longest, size = self._limits.frame_bytes, len(data)
        while True:
            some, at = frames.read_frames(data, at, longest)
            for kind, flags, number, payload in some:
                if self._block is not None and kind != Type.CONTINUATION:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
                if not self._has_settings and (kind != Type.SETTINGS or flags & frames.ACK):
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
                if kind < len(_HANDLERS):
                    _HANDLERS[kind](self, flags, number, payload)
                else:
                    self._pay(_CHEAP)  # section 5.5: unknown frames are ignored
                if self._closing_at is not None:
                    return
            if not some or at == size:
                break
        if at < size:
            rest = data[at:]
            wanted = frames.HEADER_SIZE
            if len(rest) >= wanted:
                wanted += int.from_bytes(rest[:3])
            self._keep(rest, wanted)

    def _keep(self, data: bytes, wanted: int) -> None:
        self._chunks.append(data)
        self._chunk_bytes, self._wanted = len(data), wanted

    def _pay(self, amount: int) -> None:
        if not self._patience.spend(amount, self._loop.time()):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def now(self) -> float:
        """The event loop's time, in seconds."""
        return self._loop.time()

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
        if self._block is None or number != self._block_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        self._block.append(payload)
        self._block_bytes += len(payload)
        if len(self._block) > 1 + self._limits.continuations or self._block_bytes > self._limits.header_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "a header block has no end")
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), None
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
            self._on_body(stream, b"", ended=True)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < _CONNECTION_WINDOW // 2:
            if self._receive_window < 0:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
            self.output.put(frames.window_update(0, _CONNECTION_WINDOW - self._receive_window))
            self._receive_window = _CONNECTION_WINDOW
        stream = self._streams.get(number)
        if stream is None:
            self._on_stray_data(number)
            return
        if flags & frames.PADDED:
            payload = frames.unpad(payload)
        ended = bool(flags & frames.END_STREAM)
        if not payload and not ended:
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
        if size > len(payload) and not ended:
            stream.receive_window += size - len(payload)
            self.output.put(frames.window_update(number, size - len(payload)))
        self._on_body(stream, payload, ended=ended)

    def _on_body(self, stream: Stream, data: bytes, *, ended: bool) -> None:
        stream.total += len(data)
        length = stream.request.content_length
        if length >= 0 and (stream.total > length or (ended and stream.total != length)):
            self._pay(_DEAR)
            self._kill(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.remote_done = ended
        stream.received += len(data)
        more = stream.received - stream.charged
        if more > 0:
            if not self.memory.take(self, more):
                stream.on_overflow()
                return
            stream.charged = stream.received
        stream.on_data(data, ended=ended)

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
        elif payload == _DRAIN_PING and self._announced_at is not None:
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

    # The end of streams.

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream without an answer, or in the middle of one."""
        if not stream.is_closed:
            self.output.put(frames.reset_stream(stream.id, code))
            self._reset.append(stream.id)
            self._drop(stream)

    def _kill(self, stream: Stream, code: ErrorCode) -> None:
        """The peer broke a rule on a stream: a stream error (section 5.4.2)."""
        self.reset(stream, code)
        stream.on_reset(code)

    def _refuse(self, number: int, code: ErrorCode) -> None:
        """Refuse a stream that is not, or no longer, there."""
        self._pay(_DEAR)
        self._reset.append(number)
        self.output.put(frames.reset_stream(number, code))

    def _finished(self, stream: Stream) -> None:
        stream.local_done = True
        self._patience.earn(_EARNED)
        if stream.remote_done:
            self._ended.append(stream.id)
            self._drop(stream)
        else:
            # Section 8.1: the answer is complete, and nobody wants the rest of the request.
            self.reset(stream, ErrorCode.NO_ERROR)

    def _drop(self, stream: Stream) -> None:
        stream.is_closed = True
        del self._streams[stream.id]
        stream.unsent.clear()
        stream.release()
        if not self._streams:
            self._idle_since = self._loop.time()
            if self._final_stream is not None:
                self._close()

    # The end of the connection.

    def fail(self, code: ErrorCode, text: str) -> None:
        """Tell the peer why, cancel everything, and close."""
        self.output.put(frames.go_away(self._last_stream, code, text))
        self._cancel_all()
        self._close(linger=True)

    def drain(self, grace: float) -> None:
        """Ask the peer to go elsewhere, answer what it asks until it has heard that, and close.

        In two steps (section 6.8): at first any stream is still answered, until a PING sent behind has come back.

        Args:
            grace: seconds that streams still have.
        """
        until = self._loop.time() + grace
        if self._drain_until is None or until < self._drain_until:
            self._drain_until = until
        if self._announced_at is None and self._closing_at is None:
            self._announced_at = self._loop.time()
            self.output.put(
                frames.go_away(frames.LARGEST_WINDOW, ErrorCode.NO_ERROR) + frames.ping(_DRAIN_PING, ack=False)
            )

    def _stop_accepting(self) -> None:
        if self._final_stream is None and self._closing_at is None:
            self._final_stream = self._last_stream
            self.output.put(frames.go_away(self._last_stream, ErrorCode.NO_ERROR))
            for stream in list(self._streams.values()):
                stream.on_drain()
            if not self._streams:
                self._close()

    def abort(self) -> None:
        """Cancel everything and close at once."""
        self._cancel_all()
        self._closing_at = self._loop.time()
        self._transport.abort()

    def _cancel_all(self) -> None:
        for stream in list(self._streams.values()):
            self._drop(stream)
            stream.on_reset(ErrorCode.CANCEL)

    def _close(self, *, linger: bool = False) -> None:
        if self._closing_at is not None:
            return
        self._closing_at = self._loop.time()
        self.output.flush()
        # A socket that is closed while more arrives loses what was written last (RFC 9112 section 9.6 tells the tale).
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def tick(self, now: float) -> None:
        """Enforce all that takes time; to be called about once a second."""
        limits, output = self._limits, self.output
        if self._closing_at is not None:
            if now - self._closing_at > max(_LINGER, limits.stall if output.full_since is not None else 0):
                self.abort()
        elif not self._has_settings and now - self._since_made > limits.handshake:
            self.fail(ErrorCode.SETTINGS_TIMEOUT, "no HTTP/2 came")
        elif self._block is not None and now - self._block_since > limits.header_time:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, "a header block takes too long")
        elif (output.full_since is not None and now - output.full_since > limits.stall) or (
            self._drain_until is not None and now > self._drain_until
        ):
            self.abort()
        elif self._announced_at is not None:
            if now - self._announced_at > _PING_TIME:
                self._stop_accepting()
        elif now - self._since_made > limits.age or (not self._streams and now - self._idle_since > limits.idle):
            self.drain(limits.grace)
        for stream in list(self._streams.values()):
            if stream.unsent:
                if now - stream.blocked_since > limits.stall:
                    self._kill(stream, ErrorCode.CANCEL)
            elif stream.is_late(now, limits):
                stream.on_stalled()


def _error_code(payload: bytes) -> ErrorCode:
    try:
        return ErrorCode(int.from_bytes(payload))
    except ValueError:
        return ErrorCode.INTERNAL_ERROR  # section 7: unknown codes are nothing special


_HANDLERS: Final[tuple[Callable[[Any, int, int, bytes], None], ...]] = (
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
