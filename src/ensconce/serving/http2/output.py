"""The sending half of a connection: what is written when, within the peer's windows and the transport's buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from ensconce.serving.http2.frames import (
    END_STREAM,
    LARGEST_WINDOW,
    SMALLEST_FRAME,
    ErrorCode,
    Http2Error,
    data_header,
    headers,
)
from ensconce.serving.http2.stream import Stream

__all__ = ["Output"]

_DEFAULT_WINDOW: Final = 65_535
_MOST_FRAME: Final = 64 * 1024
"""However long frames the peer takes: others want their turn."""


class Output:
    """Collects frames and writes them, all of one turn of the loop at once.

    While the transport's buffer is full, DATA stays with its stream; only frames whose number is bounded by the streams
    that are open are collected meanwhile.
    """

    def __init__(self, transport: asyncio.WriteTransport, most_bytes: int, finished: Callable[[Stream], bool]) -> None:
        """Begin with a fresh connection.

        Args:
            transport: where to write.
            most_bytes: written at once, and unsent before the transport says that it is full.
            finished: told of every stream whose answer is written; says whether others are open.
        """
        transport.set_write_buffer_limits(high=most_bytes)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._most_bytes = most_bytes
        self._finished = finished
        self._parts: list[bytes | memoryview] = []
        self._ready: deque[Stream] = deque()
        self._window = _DEFAULT_WINDOW
        self._frame_bytes = SMALLEST_FRAME
        self._scheduled = False
        self.initial_window = _DEFAULT_WINDOW
        self.is_held = False
        """Somebody is going to flush: nothing needs to be scheduled."""
        self.is_closed = False
        self.full_since: float | None = None
        """Since when the transport takes nothing more."""

    def put(self, frame: bytes) -> None:
        """Send a frame that no window counts."""
        self._parts.append(frame)
        if not self.is_held and not self._scheduled:
            self._schedule()

    def answer(self, stream: Stream, head: bytes, start: bytes, body: bytes, trailers: bytes) -> None:
        """Send a whole answer: two header blocks and the body between, in two parts; the stream is finished by it."""
        size = len(start) + len(body)
        if (
            size <= self._frame_bytes
            and size <= self._window
            and size <= stream.send_window
            and self.full_since is None
            and not self._ready
        ):
            self._window -= size
            number = stream.id
            self._parts += (
                headers(number, head),
                data_header(number, size),
                start,
                body,
                headers(number, trailers, END_STREAM),
            )
            others = self._finished(stream)
            if not self.is_held and not self._scheduled:
                if others:
                    # They may have their answers in this very turn.
                    self._schedule()
                else:
                    self.flush()
        else:
            self.put(headers(stream.id, head))
            if len(body) > _MOST_FRAME:
                self.send_body(stream, start)
                self.send_body(stream, body)
            else:
                self.send_body(stream, start + body)
            self.send_trailers(stream, trailers)

    def send_head(self, stream: Stream, head: bytes, *, last: bool = False) -> None:
        """Send a header block: the beginning of an answer, or all of it."""
        self.put(headers(stream.id, head, END_STREAM if last else 0))
        if last:
            self._finished(stream)

    def send_body(self, stream: Stream, body: bytes) -> None:
        """Send a part of the body, as soon as the windows let it."""
        if not stream.unsent:
            stream.blocked_since = self._loop.time()
        stream.unsent.insert(0, memoryview(body))
        stream.queued(len(body))
        self._enqueue(stream)

    def send_trailers(self, stream: Stream, trailers: bytes) -> None:
        """Send the last header block, after everything that is queued; the stream is finished by it.

        Where there are no trailers, an empty frame of DATA ends the stream.
        """
        if stream.unsent:
            stream.trailers = trailers
        else:
            self.put(_end(stream.id, trailers))
            self._finished(stream)

    def set_initial_window(self, size: int, streams: list[Stream]) -> None:
        """The peer chose another initial window, which moves those of open streams too (RFC 9113, 6.9.2).

        Raises:
            Http2Error: FLOW_CONTROL_ERROR: a window would become too large.
        """
        change, self.initial_window = size - self.initial_window, size
        for stream in streams:
            self.open_stream(stream, change)

    def set_frame_bytes(self, size: int) -> None:
        """The peer chose how long frames may be."""
        self._frame_bytes = min(size, _MOST_FRAME)

    def open_connection(self, increment: int) -> None:
        """The peer takes more on the connection.

        Raises:
            Http2Error: FLOW_CONTROL_ERROR: the window would become too large.
        """
        self._window += increment
        if self._window > LARGEST_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
        if self._ready and not self.is_held and not self._scheduled:
            self._schedule()

    def open_stream(self, stream: Stream, increment: int) -> None:
        """The peer takes more on a stream, or less.

        Raises:
            Http2Error: FLOW_CONTROL_ERROR: the window would become too large.
        """
        stream.send_window += increment
        if stream.send_window > LARGEST_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
        if stream.unsent:
            self._enqueue(stream)

    def _enqueue(self, stream: Stream) -> None:
        if not stream.is_queued and stream.send_window > 0:
            stream.is_queued = True
            self._ready.append(stream)
        if self._ready and not self.is_held and not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what may be written."""
        self._scheduled = False
        while self.full_since is None and not self.is_closed:
            if self._ready and self._window > 0:
                self._collect()
            if not self._parts:
                return
            # All in one: a call of the system, and under TLS a record, for each part would cost more than the copy.
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def _collect(self) -> None:
        """Frames of DATA, the streams by turns, until as much is collected as is written at once."""
        left, now = self._most_bytes, self._loop.time()
        while left > 0 and self._window > 0 and self._ready:
            stream = self._ready.popleft()
            stream.is_queued = False
            # A window can have shut while the stream waited for the connection's; it is here again once that opens.
            if stream.is_closed or stream.send_window <= 0:
                continue
            part = stream.unsent[-1]
            size = min(len(part), self._frame_bytes, self._window, stream.send_window)
            self._window -= size
            stream.send_window -= size
            stream.blocked_since = now
            left -= size
            stream.sent(size)
            self._parts += (data_header(stream.id, size), part[:size])
            if size < len(part):
                stream.unsent[-1] = part[size:]
            else:
                stream.unsent.pop()
            if stream.unsent:
                if stream.send_window > 0:
                    stream.is_queued = True
                    self._ready.append(stream)
            elif stream.trailers is not None:
                self._parts.append(_end(stream.id, stream.trailers))
                self._finished(stream)
            else:
                stream.on_room()

    def pause(self) -> None:
        """The transport's buffer is full."""
        self.full_since = self._loop.time()

    def resume(self) -> None:
        """The transport's buffer has room again."""
        self.full_since = None
        self.flush()

    def finish(self) -> None:
        """Write what has been collected, full or not: nothing comes after it."""
        self.flush()
        if self._parts and not self.is_closed:
            self._transport.write(b"".join(self._parts))
        self.close()

    def close(self) -> None:
        """Nothing can be written any more."""
        self.is_closed = True
        self._parts.clear()
        self._ready.clear()


def _end(number: int, trailers: bytes) -> bytes:
    return headers(number, trailers, END_STREAM) if trailers else data_header(number, 0, END_STREAM)
