"""One call of gRPC, passed on as HTTP/2 has it: fields, parts of the body, trailers, resets. Messages are not read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from ensconce.client.seats import Lease
from ensconce.client.tunnel import as_failure
from ensconce.errors import EnsconceError
from ensconce.proxy.back import BackConnection, BackStream
from ensconce.proxy.link import Link
from ensconce.proxy.refusals import code_of, code_of_reset, cut
from ensconce.proxy.upstream import Upstream
from ensconce.serving.grpc import status
from ensconce.serving.grpc.call import Front, Streaming, UnaryCall
from ensconce.serving.grpc.framing import read_timeout
from ensconce.serving.grpc.health import HEALTH_SERVICE, Health
from ensconce.serving.grpc.streaming import StreamingCall
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.frames import ErrorCode
from ensconce.serving.http2.headers import Request, encode_block
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.server import Http2Server
from ensconce.serving.http2.stream import Stream
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["ForwardedCall", "Forwarding", "GrpcFront", "Observe"]

# Windows are opened in steps, so that not every part of a body makes a frame of its own.
_STEP: Final = 256 * 1024
_LONGEST_TIMEOUT_MS: Final = 99_999_999
# A client on this machine has no other proxy to go to. Blocks are written anew, into one frame of 16 KiB.
_LIMITS: Final = Http2Limits(header_bytes=15 * 1024, age=math.inf)
_HEALTH_BYTES: Final = 4096
_SERVICES: Final = ("PredictionService", "ModelService")

Observe = Callable[[Code, float, str, EnsconceError | None], object]
"""Told of each call: how it ended, its seconds, the replica's id or "", and why it was not passed on."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What all calls have in common.

    Attributes:
        upstream: where they go.
        observe: told of each.
    """

    upstream: Upstream[Link]
    observe: Observe


class ForwardedCall(Stream):
    """A client's call, and with it a :class:`BackStream` as soon as there is a connection to a replica.

    What of the request comes before waits here; it is a window at most. Each side's window opens as the other takes.
    """

    __slots__ = (
        "_back",
        "_began",
        "_early",
        "_forwarding",
        "_has_head",
        "_is_over",
        "_lease",
        "_owed",
        "_taken",
        "_task",
        "_timer",
    )

    def __init__(self, forwarding: Forwarding, connection: Connection, number: int, request: Request) -> None:
        """Made by the connection."""
        super().__init__(connection, number, request)
        self._forwarding = forwarding
        self._began = connection.now()
        self._lease: Lease[Link] | None = None
        self._back: BackStream | None = None
        self._early: list[bytes] = []
        self._owed = self._taken = 0
        self._has_head = self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        # A call may be a stream in which nobody says anything for hours.
        self.patient = True

    # The client's side.

    def on_request(self, *, ended: bool) -> None:  # noqa: ARG002 - see remote_done
        """Pass the call on, at once if there is a connection for it."""
        fields = self.request.fields
        if self.request.method != b"POST":
            self.connection.output.send_head(self, status.WRONG_METHOD, last=True)
            return
        if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
            self.connection.output.send_head(self, status.UNSUPPORTED_MEDIA, last=True)
            return
        try:
            if (timeout := fields.get(b"grpc-timeout")) is not None:
                self._timer = asyncio.get_running_loop().call_later(read_timeout(timeout), self._expire)
            lease = self._lease = self._forwarding.upstream.lease()
            ready = lease.seat.channel.ready()
        except RequestError as error:
            self.refuse(error.code, error.problem)
        except EnsconceError as error:
            self._refuse_with(error)
        else:
            if ready is not None:
                self._begin(ready)
            else:
                self._task = asyncio.get_running_loop().create_task(self._connect(lease))

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        """Some of the request."""
        if self._is_over:
            return
        data = b"".join(parts)
        if self._back is None:
            self._early.append(data)
        else:
            self._pass_on(self._back, data, ended=ended)

    def on_reset(self, _code: ErrorCode) -> None:
        """The client wants no answer any more."""
        self._end(Code.CANCELLED)

    def on_overflow(self) -> None:
        """The proxy holds as much as it can."""
        self.refuse(Code.RESOURCE_EXHAUSTED, "The proxy has no memory for more requests")

    def sent(self, amount: int) -> None:
        """Bytes of the answer are on their way: as many more may come."""
        super().sent(amount)
        self._taken += amount
        back = self._back
        if self._taken >= _STEP and back is not None and not back.is_closed:
            back.consumed(self._taken)
            self._taken = 0

    def _expire(self) -> None:
        self.refuse(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    # To the replica.

    async def _connect(self, lease: Lease[Link]) -> None:
        """Begin where there is a connection first; nothing has been sent, so that every replica can be tried."""
        tried: set[str] = set()
        try:
            while True:
                try:
                    ready = await lease.seat.channel.connection()
                    break
                except ConnectionError:
                    tried.add(lease.replica_id)
                    failure = lease.failure
                    lease.release()
                    lease = self._lease = self._forwarding.upstream.lease(tried)
                    if lease.replica_id in tried:
                        raise self._forwarding.upstream.reason(failure) from None
            self._task = None
            if not self.is_closed:
                self._begin(ready)
        except Exception as error:  # nobody else would end the call
            self._task = None
            self._refuse_with(as_failure(error))

    def _begin(self, connection: BackConnection) -> None:
        back = self._back = connection.begin(self, self._head())
        early, self._early = b"".join(self._early), []
        self._pass_on(back, early, ended=self.remote_done)

    def _head(self) -> bytes:
        request = self.request
        fields = dict(request.fields)
        fields.pop(b"host", None)
        if self._timer is not None:
            left = self._timer.when() - self.connection.now()
            fields[b"grpc-timeout"] = b"%dm" % min(_LONGEST_TIMEOUT_MS, max(1, int(left * 1000)))
        return encode_block(
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":path", request.path),
                (b":authority", self._forwarding.upstream.service.server_name.encode()),
                *fields.items(),
            ]
        )

    def _pass_on(self, back: BackStream, data: bytes, *, ended: bool) -> None:
        output = back.connection.output
        if data:
            output.send_body(back, data)
        if ended:
            output.send_trailers(back, b"")

    # From the replica.

    def passed_on(self, amount: int) -> None:
        """Bytes of the request are on their way to the replica: as many more may come."""
        self._owed += amount
        if self._owed >= _STEP and not self.is_closed:
            self.consumed(self._owed)
            self._owed = 0

    def on_head(self, fields: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """The answer's first header block, or its only one."""
        self._has_head = True
        if ended:
            self._answered(fields)
        if not self.is_closed:
            self.connection.output.send_head(self, encode_block(fields), last=ended)

    def on_answer(self, data: bytes) -> None:
        """Some of the answer."""
        if data and not self.is_closed:
            self.connection.output.send_body(self, data)

    def on_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """The end of the answer."""
        self._answered(fields)
        if not self.is_closed:
            self.connection.output.send_trailers(self, encode_block(fields))

    def on_lost(self, code: ErrorCode, *, is_cut: bool) -> None:
        """The replica ends the call without a status, or its connection is lost (``is_cut``)."""
        self._back = None
        if is_cut:
            self._refuse_with(cut())
        elif code is ErrorCode.REFUSED_STREAM and not self._has_head and not self.is_closed:
            # It has not looked at the call: gRPC's clients make it again by themselves.
            self.connection.reset(self, code)
            self._end(Code.UNAVAILABLE)
        else:
            self.refuse(code_of_reset(code), f"The replica reset the stream ({code.name})")

    # The end.

    def _answered(self, fields: list[tuple[bytes, bytes]]) -> None:
        text = dict(fields).get(b"grpc-status", b"")
        number = int(text) if text.isdigit() and len(text) <= 2 else Code.UNKNOWN
        self._back = None
        self._end(Code(number) if number <= max(Code) else Code.UNKNOWN)

    def _refuse_with(self, error: EnsconceError) -> None:
        self.refuse(code_of(error), str(error), error)

    def refuse(self, code: Code, text: str, reason: EnsconceError | None = None) -> None:
        """End the call with a status of the proxy's own, if it has not ended."""
        if self._is_over:
            return
        self._end(code, reason)
        if not self.is_closed and not self.local_done:
            if self._has_head:
                self.connection.output.send_trailers(self, status.trailers(code, text))
            else:
                self.connection.output.send_head(self, status.trailers_only(code, text), last=True)

    def _end(self, code: Code, reason: EnsconceError | None = None) -> None:
        """Nothing more happens on behalf of this call."""
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        back, self._back = self._back, None
        if back is not None:
            back.connection.reset(back, ErrorCode.CANCEL)
        lease = self._lease
        replica = ""
        if lease is not None:
            replica = lease.replica_id
            lease.release()
        self._forwarding.observe(code, self.connection.now() - self._began, replica, reason)


class GrpcFront:
    """What listens for calls of gRPC, and answers for the proxy's own health."""

    def __init__(self, forwarding: Forwarding) -> None:
        """Prepare, within the event loop that is to serve."""
        self._forwarding = forwarding
        self.health = Health((*_SERVICES, *(f"tensorflow.serving.{name}" for name in _SERVICES)))
        methods = {f"/{HEALTH_SERVICE}/{name}".encode(): each for name, each in self.health.methods().items()}
        self._threads = ThreadPoolExecutor(1)
        self._own = Front(methods, _HEALTH_BYTES, _HEALTH_BYTES, self._threads)
        self.server = Http2Server(self._accept, _LIMITS)

    def _accept(self, connection: Connection, number: int, request: Request) -> Stream:
        own = self._own.methods.get(request.path)
        if own is None:
            return ForwardedCall(self._forwarding, connection, number, request)
        if isinstance(own, Streaming):
            return StreamingCall(self._own, connection, number, request, own)
        return UnaryCall(self._own, connection, number, request, own)

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection."""
        self.health.tell(serving=False)
        await self.server.stop(grace)
        self._threads.shutdown(wait=False)
