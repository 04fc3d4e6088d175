"""One connection: requests one after another, each judged, read whole, answered.

The peer is a stranger: whatever it can make longer is bounded, and so is the time that it can take.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from ensconce.serving.connections import client_of, send_at_once
from ensconce.serving.http1.chunks import Chunks
from ensconce.serving.http1.coding import accepts_gzip, gunzip, gzipped
from ensconce.serving.http1.head import Head, parse_head
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.tls_object import TlsObject
from ensconce.serving.unforeseen import unforeseen

if TYPE_CHECKING:
    from ensconce.serving.http1.server import HttpServer

__all__ = ["Connection", "Handler"]

Handler = Callable[[Request], Response | Awaitable[Response]]
"""What answers: at once, or later, in a task that is cancelled when the client goes away."""

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_GZIP_FROM: Final = 1024
"""Shorter answers fit into a packet as they are."""
_IN_LOOP: Final = 16 * 1024
"""Longer bodies are decompressed and compressed in a thread."""
_TURNS: Final = 16
"""Requests that are answered at once before other connections are looked at."""
_CHARGED_FROM: Final = 64 * 1024
"""Shorter answers are not counted: systems' buffers take as much."""


class _State(Enum):
    HEAD = 1
    BODY = 2
    BUSY = 3
    LINGER = 4


class Connection(asyncio.BufferedProtocol):
    """Made by :class:`HttpServer` for every connection."""

    def __init__(self, server: HttpServer, age: float) -> None:
        """Begin before anything has arrived; after ``age`` seconds it ends with its next answer."""
        self._age = age
        self._server, self._limits, self._memory = server, server.limits, server.memory
        self._loop = asyncio.get_running_loop()
        self._state = _State.HEAD
        self._made = self._since = self._loop.time()
        self._kept = b""
        """What is here of a head."""
        self._ahead: list[bytes] = []
        """What came while a request was answered."""
        self._ahead_bytes = 0
        self._head: Head | None = None
        self._body = bytearray()
        """What is here of a body."""
        self._received = self._charged = 0
        self._chunks: Chunks | None = None
        self._task: asyncio.Task[None] | None = None
        self._blocked_at: float | None = None
        self._lingered = 0
        self._peer = ""
        self._channel: TlsObject | None = None
        self.host = ""
        """The peer's address."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done, if there is one."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._server.joined(self):
            transport.abort()
            return
        send_at_once(transport)
        self._made = self._since = self._loop.time()
        self.host, self._peer = client_of(transport.get_extra_info("peername"))
        self._channel = transport.get_extra_info("ssl_object")

    def connection_lost(self, _exception: Exception | None) -> None:
        """It is over, whoever ended it; nobody waits for an answer any more."""
        if self._task is not None:
            self._task.cancel()
        self._release()
        self._body.clear()
        self._ahead.clear()
        self._server.left(self)

    def pause_writing(self) -> None:
        """Nothing more is read from a peer that takes nothing."""
        self._blocked_at = self._loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer takes what was written."""
        self._blocked_at = None
        if self._state not in (_State.BODY, _State.BUSY):
            self._release()
        if self._ahead_bytes <= self._limits.ahead_bytes:
            self._transport.resume_reading()
        if self._state is _State.HEAD:
            self._next()

    def get_buffer(self, _hint: int) -> memoryview:
        """Where to put what arrives."""
        return self._server.buffer

    def buffer_updated(self, size: int) -> None:
        """Something has arrived."""
        self.data_received(self._server.buffer[:size].tobytes())

    def data_received(self, data: bytes) -> None:
        """Judge what has arrived; keep what comes too early."""
        if self._state is _State.LINGER:
            self._lingered += len(data)
            if self._lingered > self._limits.linger_bytes:
                self._transport.abort()
        elif self._state is _State.BUSY or self._blocked_at is not None or self._ahead:
            self._ahead.append(data)
            self._ahead_bytes += len(data)
            if self._ahead_bytes > self._limits.ahead_bytes:
                self._transport.pause_reading()
        else:
            self._take(data)

    def _next(self) -> None:
        """Go on with what came meanwhile."""
        if self._ahead:
            data = b"".join(self._ahead)
            self._ahead.clear()
            self._ahead_bytes = 0
            self._take(data)
        if self._ahead_bytes <= self._limits.ahead_bytes and self._blocked_at is None:
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        turns = 0
        try:
            while self._transport is not None and not self._transport.is_closing():
                if self._state is _State.HEAD:
                    rest = self._take_head(data)
                elif self._state is _State.BODY:
                    rest = self._take_body(data)
                else:
                    break
                if rest is None:
                    return
                data = rest
                if self._blocked_at is not None:
                    break
                turns += 1
                if turns == _TURNS and data and self._state is _State.HEAD:
                    # Others want their turn too, however many requests have come in one piece.
                    self._loop.call_soon(self._next)
                    break
        except HttpError as error:
            self._refuse(error)
            return
        if data and self._state is not _State.LINGER:
            self._ahead.append(data)
            self._ahead_bytes += len(data)

    def _take_head(self, data: bytes) -> bytes | None:
        """What comes after the head, or None where it is not here yet."""
        kept = len(self._kept)
        if kept:
            data = self._kept + data
        if data.startswith(b"\r\n") and (lines := _EMPTY_LINES.match(data)) is not None:
            data = data[lines.end() :]  # section 2.2
        if not data:
            self._kept = b""
            return None
        if not kept:
            self._since = self._loop.time()
        most = self._limits.header_bytes
        end = data.find(b"\r\n\r\n", max(0, kept - 3), most)
        if end < 0:
            if _BARE_LF.search(data, max(0, kept - 1), most):
                raise HttpError(400, "Lines must end in CR LF")
            if len(data) >= most:
                raise HttpError(431, f"The head of the request is longer than {most} bytes")
            if len(data) > self._limits.line_bytes and data.find(b"\r\n", 0, self._limits.line_bytes) < 0:
                raise HttpError(414, f"The request line is longer than {self._limits.line_bytes} bytes")
            self._kept = data
            return None
        self._kept = b""
        self._head = None
        head = self._head = parse_head(data[: end + 4], self._limits)
        rest = data[end + 4 :]
        if head.length == 0:
            self._serve(head, b"", 0)
        elif head.length is not None and head.length <= len(rest):
            self._check_length(head.length)
            self._charge(head.length)
            self._serve(head, rest[: head.length], head.length)
            rest = rest[head.length :]
        else:
            if head.length is not None:
                self._check_length(head.length)
            self._state, self._received, self._since = _State.BODY, 0, self._loop.time()
            self._chunks = Chunks(self._limits) if head.length is None else None
            if head.expects_continue and not rest:
                self._transport.write(_CONTINUE)
        return rest

    def _check_length(self, length: int) -> None:
        if length > self._limits.body_bytes:
            raise HttpError(413, f"The body of the request is longer than {self._limits.body_bytes} bytes")
        if not self._memory.fits(length):
            raise HttpError(503, "The server has no memory for the body at the moment")

    def _take_body(self, data: bytes) -> bytes | None:
        """What comes after the body, or None where it is not here yet."""
        assert self._head is not None
        rest = b""
        if self._chunks is not None:
            parts, rest = self._chunks.feed(data)
            is_done = self._chunks.is_done
        else:
            assert self._head.length is not None
            missing = self._head.length - self._received
            parts, rest = [data[:missing]], data[missing:]
            is_done = len(data) >= missing
        amount = sum(map(len, parts))
        self._received += amount
        if self._received > self._limits.body_bytes:
            raise HttpError(413, f"The body of the request is longer than {self._limits.body_bytes} bytes")
        self._charge(amount)
        # Bodies that come in drops would cost more as parts than as bytes, and joining those again and again takes time
        # by the square of their number.
        for part in parts:
            self._body += part
        if not is_done:
            return None
        body = bytes(self._body)
        self._body.clear()
        self._chunks = None
        self._serve(self._head, body, self._received)
        return rest

    def _charge(self, amount: int) -> None:
        if not self._memory.take(amount):
            raise HttpError(503, "The server has no memory for the body at the moment")
        self._charged += amount

    def _release(self) -> None:
        if self._charged:
            self._memory.give(self._charged)
            self._charged = 0

    # The answer.

    def _serve(self, head: Head, body: bytes, received: int) -> None:
        coding = head.fields.get("content-encoding", "").lower()
        answer: Response | Awaitable[Response]
        if coding and coding != "identity":
            if coding not in ("gzip", "x-gzip"):
                raise HttpError(415, "The only content coding that is understood is gzip")
            answer = self._unpacked(head, body)
        else:
            answer = self._server.handler(
                Request(head.method, head.target, head.fields, body, received, self._peer, self._channel),
            )
            if isinstance(answer, Response):
                self._answer(answer, head)
                return
        self._state = _State.BUSY
        self._task = self._loop.create_task(self._run(answer, head))

    async def _unpacked(self, head: Head, body: bytes) -> Response:
        """The answer to a request whose body is compressed."""
        lock, taken, is_wanted = threading.Lock(), 0, True

        def take(amount: int) -> bool:
            nonlocal taken
            with lock:
                if not is_wanted or not self._memory.take(amount):
                    return False
                taken += amount
                return True

        try:
            plain = await asyncio.to_thread(gunzip, body, self._limits.body_bytes, take)
            answer = self._server.handler(
                Request(head.method, head.target, head.fields, plain, len(body), self._peer, self._channel),
            )
            return answer if isinstance(answer, Response) else await answer
        finally:
            with lock:
                # The thread may not have ended: what it took from now on, nobody would give back.
                is_wanted = False
            self._memory.give(taken)

    async def _run(self, answer: Awaitable[Response], head: Head) -> None:
        packed = None
        try:
            response = await answer
            if len(response.body) > _IN_LOOP and _takes_gzip(head):
                packed = await asyncio.to_thread(gzipped, response.body)
        except HttpError as error:
            response = self._server.on_error(error)
        except Exception as error:
            response = self._server.on_error(HttpError(500, unforeseen(error)))
        self._task = None
        self._answer(response, head, packed)
        if self._state is _State.HEAD:
            self._next()

    def _answer(self, response: Response, head: Head, packed: bytes | None = None) -> None:
        """Write an answer, and be ready for the next request unless the connection is to end."""
        self._release()
        self._state, self._head = _State.HEAD, None
        self._since = self._loop.time()
        if self._transport.is_closing():
            return
        close = not head.keep_alive or self._server.is_stopping or self._since - self._made > self._age
        body = response.body
        if packed is None and len(body) >= _GZIP_FROM and _takes_gzip(head):
            packed = gzipped(body)
        if packed is not None:
            body = packed
        if len(body) > _CHARGED_FROM and not self._memory.take(len(body)):
            response = self._server.on_error(HttpError(503, "The server has no memory for the answer at the moment"))
            body, packed = response.body, None
        elif len(body) > _CHARGED_FROM:
            self._charged += len(body)
        coding = "gzip" if packed is not None else ""
        start = response.head(date=self._server.date, close=close, coding=coding, length=len(body))
        self._transport.write(start if head.method == "HEAD" else start + body)
        if self._blocked_at is None:
            self._release()
        if close:
            self._state = _State.LINGER
            self._ahead.clear()
            self._transport.close()

    def _refuse(self, error: HttpError) -> None:
        """Answer what cannot be read on; nothing that comes after it can be trusted to be a request."""
        self._release()
        self._body.clear()
        response = self._server.on_error(error)
        body = b"" if self._head is not None and self._head.method == "HEAD" else response.body
        self._transport.write(response.head(date=self._server.date, close=True, length=len(response.body)) + body)
        # What the peer still sends is read for a while: otherwise the system resets the connection, answer and all.
        self._state, self._since = _State.LINGER, self._loop.time()
        self._ahead.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # The clock and the end.

    @property
    def waits_since(self) -> float | None:
        """Since when the peer could have asked something, and has not, or not all of it; None: it is being answered."""
        if self._state is _State.BUSY or self._blocked_at is not None or self._transport.is_closing():
            return None
        return self._since

    def tick(self, now: float) -> None:
        """Look at the clock."""
        limits = self._limits
        waited = now - self._since
        if self._blocked_at is not None and now - self._blocked_at > limits.stall:
            self._transport.abort()
        elif self._state is _State.LINGER:
            if waited > limits.linger:
                self._transport.abort()
        elif self._state is _State.BODY:
            if waited > limits.body_time:
                self._refuse(HttpError(408, f"The body did not arrive within {limits.body_time:g} seconds"))
        elif self._state is _State.HEAD:
            if self._kept and waited > limits.header_time:
                self._refuse(HttpError(408, f"The head did not arrive within {limits.header_time:g} seconds"))
            elif not self._kept and self._blocked_at is None and waited > limits.idle:
                self._transport.close()

    def drain(self) -> None:
        """Close if nothing is being asked or answered; else with the next answer."""
        if self._state is _State.HEAD and not self._kept:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


def _takes_gzip(head: Head) -> bool:
    return accepts_gzip(head.fields.get("accept-encoding", ""))
