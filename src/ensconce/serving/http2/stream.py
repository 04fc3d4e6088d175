"""A stream: one request and its answer, as what lies above HTTP/2 sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ensconce.serving.http2.frames import ErrorCode, window_update
from ensconce.serving.http2.headers import Request
from ensconce.serving.http2.limits import Http2Limits

if TYPE_CHECKING:
    from ensconce.serving.http2.connection import Connection

__all__ = ["Stream"]


class Stream:
    """To be subclassed by what answers; a connection makes one for every request, with what its owner gave it.

    The methods are called by the connection, in the event loop. They answer through ``self.connection.output`` and
    ``self.connection``, at once or later; once :attr:`is_closed`, nothing is sent any more.
    """

    __slots__ = (
        "answer_bytes",
        "blocked_since",
        "charged",
        "connection",
        "id",
        "is_closed",
        "is_queued",
        "local_done",
        "patient",
        "receive_window",
        "received",
        "remote_done",
        "request",
        "send_window",
        "started",
        "total",
        "trailers",
        "unsent",
        "wanted",
    )

    def __init__(self, connection: Connection, stream_id: int, request: Request) -> None:
        """Made by the connection, which fills in the windows."""
        self.connection = connection
        self.id = stream_id
        self.request = request
        self.send_window = 0
        self.receive_window = 0
        self.total = 0
        """Bytes of the body so far."""
        self.received = 0
        """Those of them that are held here."""
        self.charged = 0
        """Bytes that the account of memory holds for this stream."""
        self.answer_bytes = 0
        """Of the answer, that wait to be sent; the account holds them too."""
        self.remote_done = False
        """The whole request is here."""
        self.local_done = False
        """The whole answer is written, or queued."""
        self.is_closed = False
        self.is_queued = False
        """It is among those that can send."""
        self.wanted = 0
        """Bytes of the body that were reserved, or are to be."""
        self.patient = False
        """It may be silent for long: no part of a message is here."""
        self.started = 0.0
        """When it began to wait for what must arrive now."""
        self.blocked_since = 0.0
        """Since when nothing of what is unsent could be sent."""
        self.unsent: list[memoryview] = []
        """Parts of the answer that wait for a window, the next one last."""
        self.trailers: bytes | None = None

    def on_request(self, *, ended: bool) -> None:
        """The header fields are here (:attr:`request`); ``ended`` when no body follows."""
        raise NotImplementedError

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        """Some of the body is here, the last of it when ``ended``; views of it hold only until this returns."""
        raise NotImplementedError

    def on_reset(self, _code: ErrorCode) -> None:
        """The peer takes no answer any more; the stream is closed."""
        raise NotImplementedError

    def on_stalled(self) -> None:
        """The body does not arrive as fast as it must; end the stream."""
        self.connection.reset(self, ErrorCode.CANCEL)

    def on_overflow(self) -> None:
        """There is no memory for this part of the body, which is dropped; end the stream."""
        self.connection.reset(self, ErrorCode.ENHANCE_YOUR_CALM)

    def on_room(self) -> None:
        """What was queued has been sent."""

    def on_drain(self) -> None:
        """The connection ends when its streams have."""

    # What of the request and of the answer is held here.

    @property
    def is_waiting_for_memory(self) -> bool:
        """It asked for memory that it has not got yet."""
        return self.wanted > self.charged

    def is_late(self, now: float, limits: Http2Limits) -> bool:
        """Less of the body is here than should be."""
        if self.remote_done or self.patient or self.is_waiting_for_memory:
            return False
        return now - self.started > limits.stall + self.received / limits.slowest

    def expect(self, total: int) -> None:
        """``total`` bytes are to be held at once: let them come as soon as there is memory for them."""
        if total > self.charged:
            self.wanted = total
            self.connection.memory.reserve(self, total - self.charged)
        else:
            self._open_window(total)

    def granted(self, amount: int) -> None:
        """Memory that was asked for is there."""
        self.charged += amount
        self.started = self.connection.now()
        self._open_window(self.charged)

    def _open_window(self, total: int) -> None:
        increment = total - self.received - self.receive_window
        if increment > 0 and not self.remote_done:
            self.receive_window += increment
            self.connection.output.put(window_update(self.id, increment))

    def consumed(self, amount: int) -> None:
        """Bytes of the body are no longer held, and as many more may come."""
        self.received -= amount
        self.charged -= amount
        self.connection.memory.give(self.connection, amount)
        self.receive_window += amount
        if not self.remote_done:
            self.connection.output.put(window_update(self.id, amount))

    def queued(self, amount: int) -> None:
        """Bytes of the answer wait to be sent."""
        self.answer_bytes += amount
        self.connection.memory.hold(self.connection, amount)

    def sent(self, amount: int) -> None:
        """Bytes of the answer that waited are sent."""
        self.answer_bytes -= amount
        self.connection.memory.give(self.connection, amount)

    def release(self) -> None:
        """Nothing of the request is held any more; called once."""
        if self.is_waiting_for_memory:
            self.connection.memory.forget(self)
        if amount := self.request.size + self.charged + self.answer_bytes:
            self.charged = self.answer_bytes = 0
            self.connection.memory.give(self.connection, amount)
        self.wanted = 0
