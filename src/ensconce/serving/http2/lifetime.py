"""The life of a connection: its streams, and how they and it end, by agreement or by force."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from ensconce.serving.connections import client_of, send_at_once
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ErrorCode, Http2Error, Setting
from ensconce.serving.http2.limits import Http2Limits, Patience
from ensconce.serving.http2.memory import Memory
from ensconce.serving.http2.output import Output
from ensconce.serving.http2.stream import Stream
from ensconce.serving.tls_object import TlsObject

__all__ = ["CONNECTION_WINDOW", "DRAIN_PING", "Lifetime", "Server"]

CONNECTION_WINDOW: Final = 16 * 1024 * 1024
DRAIN_PING: Final = b"last one"
_DEFAULT_WINDOW: Final = 65_535
_REMEMBERED: Final = 256
_LINGER: Final = 1.0
"""Seconds for the peer to read why it was disconnected."""
_PING_TIME: Final = 5.0
# What a fault on a stream costs of the peer's patience, and what an answer earns.
_DEAR: Final = 10
_EARNED: Final = 12


class Server(Protocol):
    """What keeps the connections."""

    def joined(self, connection: Lifetime) -> bool:
        """A connection is there; False when it may not stay."""

    def left(self, connection: Lifetime) -> None:
        """A connection is gone."""


class Lifetime(asyncio.BufferedProtocol):
    """What a connection is apart from the frames that arrive on it."""

    output: Output

    def __init__(self, server: Server, limits: Http2Limits, memory: Memory) -> None:
        """Begin before anything has arrived.

        Args:
            server: told of the connection's beginning and end.
            limits: of this connection.
            memory: of all connections.
        """
        self._server, self._limits, self.memory = server, limits, memory
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.host = self.peer = ""
        """The client's host, where it has one, and its address as it is told."""
        self.channel: TlsObject | None = None
        """Its TLS, where it has any."""
        self.held = 0
        """Bytes of the account of memory that this connection holds."""
        self._streams: dict[int, Stream] = {}
        self._patience = Patience(now)
        self._has_settings = False
        self._block_since: float | None = None
        """Since when a header block is incomplete."""
        self._last_stream = 0
        # Streams that ended by a reset, for which frames may still be under way; and some that ended otherwise.
        self._reset: deque[int] = deque(maxlen=_REMEMBERED)
        self._ended: deque[int] = deque(maxlen=_REMEMBERED)
        self._since_made = self._idle_since = now
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
        send_at_once(transport)
        self.host, self.peer = client_of(transport.get_extra_info("peername"))
        self.channel = transport.get_extra_info("ssl_object")
        self._since_made = self._idle_since = self._loop.time()
        self.output.put(
            frames.settings(self._own_settings()) + frames.window_update(0, CONNECTION_WINDOW - _DEFAULT_WINDOW)
        )

    def _own_settings(self) -> dict[Setting, int]:
        limits = self._limits
        return {
            Setting.MAX_CONCURRENT_STREAMS: limits.streams,
            Setting.INITIAL_WINDOW_SIZE: limits.window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        }

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

    def _pay(self, amount: int) -> None:
        if not self._patience.spend(amount, self._loop.time()):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    @property
    def waits_since(self) -> float | None:
        """Since when the peer could have asked something, and has not, or not all of it; None: it is being answered."""
        if self._closing_at is not None or any(stream.remote_done for stream in self._streams.values()):
            return None
        return self._idle_since

    def now(self) -> float:
        """The event loop's time, in seconds."""
        return self._loop.time()

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

    def _finished(self, stream: Stream) -> bool:
        """The answer is written; whether others are still to be."""
        stream.local_done = True
        if stream.total:
            self._patience.earn(_EARNED)
        elif not self._patience.spend(_DEAR, self._loop.time()):
            # Nothing was asked for: answers to that cost us more than they cost the peer.
            self._loop.call_soon(self._lose_patience)
        if stream.remote_done:
            self._ended.append(stream.id)
            self._drop(stream)
        else:
            # Section 8.1: the answer is complete, and nobody wants the rest of the request.
            self.reset(stream, ErrorCode.NO_ERROR)
        return bool(self._streams)

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

    def _lose_patience(self) -> None:
        if self._closing_at is None:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many streams that ask for nothing")

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
                frames.go_away(frames.LARGEST_WINDOW, ErrorCode.NO_ERROR) + frames.ping(DRAIN_PING, ack=False)
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
        self.output.finish()
        # A socket that is closed while more arrives loses what was written last (RFC 9112 section 9.6 tells the tale).
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def tick(self, now: float) -> None:
        """Enforce all that takes time."""
        limits, output = self._limits, self.output
        if self._closing_at is not None:
            if now - self._closing_at > (limits.stall if self._transport.get_write_buffer_size() else _LINGER):
                self.abort()
        elif not self._has_settings and now - self._since_made > limits.handshake:
            self.fail(ErrorCode.SETTINGS_TIMEOUT, "no HTTP/2 came")
        elif self._block_since is not None and now - self._block_since > limits.header_time:
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
