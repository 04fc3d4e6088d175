"""The client's end of HTTP/1.1, to a replica that has proved what it is (RFC 9112): one request after the other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, cast

import h11

from ensconce.client.transport import check_framed
from ensconce.errors import UnreachableError
from ensconce.proxy.refusals import cut
from ensconce.serving.http1.memory import Memory

__all__ = ["READ_BYTES", "RestAnswer", "RestBack"]

READ_BYTES: Final = 256 * 1024
"""Of the memory into which connections read; one serves all of a loop."""

# Written at once, and so encrypted before anybody else has his turn.
_PART: Final = 256 * 1024
_LONGEST_HEAD: Final = 100 * 1024
_LONGEST_BODY: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """A whole answer.

    Attributes:
        status: of HTTP.
        fields: names in lower case, in their order.
        body: without chunks.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes


class RestBack(asyncio.BufferedProtocol):
    """One connection; who asks waits for the answer before the next is asked.

    Args:
        buffer: of :data:`READ_BYTES`, where what arrives is put for a moment.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[RestAnswer | UnreachableError] | None = None
        self._memory: Memory | None = None
        self._charged = 0
        self._method = ""
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._writable: asyncio.Future[None] | None = None
        self._is_lost = False

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        if self._transport is None or self._transport.is_closing():
            return False
        return not self._is_lost and self._http.our_state is h11.IDLE

    async def ask(self, request: h11.Request, body: bytes, memory: Memory) -> RestAnswer:
        """Send a request, and wait for its answer. Cancelled, it ends the connection.

        Args:
            request: with the length of ``body`` in its fields, or none.
            body: all of it.
            memory: what arrives of the answer is taken from there, and given back when this returns.

        Raises:
            UnreachableError: ``proxy.connection``, the connection was lost or is spoken otherwise than it should be;
                ``http.length``, the answer says not where it ends; ``proxy.answer``, it is too long;
                ``proxy.memory``, there is no room for it.
        """
        if not self.is_open:
            raise cut()
        answer: asyncio.Future[RestAnswer | UnreachableError] = self._loop.create_future()
        self._answer, self._memory = answer, memory
        self._method, self._head = request.method.decode("ascii"), None
        try:
            await self._send(request, memoryview(body), answer)
            # An exception that nobody fetches, because the client has gone at this moment, would be logged.
            found = await answer
            if isinstance(found, UnreachableError):
                raise found
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None
            answer.cancel()
            memory.give(self._charged)
            self._charged = 0
        self._go_on()
        return found

    async def _send(self, request: h11.Request, body: memoryview, answer: asyncio.Future[Any]) -> None:
        """Until all is written, or the answer is here, or known not to come, before that."""
        assert self._transport is not None
        head = self._http.send(request) or b""
        for at in range(0, len(body), _PART):
            part = body[at : at + _PART]
            # It counts the bytes, and gives them back as they are.
            self._http.send_with_data_passthrough(h11.Data(data=cast("bytes", part)))
            self._transport.write(head + part if head else part)
            head = b""
            if self._writable is not None:
                either: list[asyncio.Future[Any]] = [self._writable, answer]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)
            if answer.done():
                return
        if head:
            self._transport.write(head)
        self._http.send(h11.EndOfMessage())

    def _go_on(self) -> None:
        """Be ready for the next request, if there may be one."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.abort()

    def abort(self) -> None:
        """End it at once."""
        self._is_lost = True
        if self._transport is not None:
            self._transport.abort()

    # From the replica.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exception: Exception | None) -> None:
        """It has ended; what has not come is lost."""
        self._is_lost = True
        self._fail(cut())
        self.resume_writing()

    def pause_writing(self) -> None:
        """The replica takes nothing."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It does again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def get_buffer(self, _hint: int) -> memoryview:
        """Where to put what arrives."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """Something has arrived."""
        if self._answer is None or self._answer.done():
            # What nobody asked for would be taken for the answer to the next request.
            self.abort()
            return
        try:
            self._http.receive_data(bytes(self._buffer[:size]))
            while self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError:
            self.abort()
            self._fail(cut())
        except UnreachableError as error:
            self.abort()
            self._fail(error)

    def _take(self, event: object) -> bool:
        """Whether there may be more."""
        if isinstance(event, h11.Response):
            check_framed(self._method, event.status_code, [name.decode("ascii") for name, _ in event.headers])
            self._head, self._body = event, bytearray()
        elif isinstance(event, h11.Data):
            assert self._memory is not None
            self._body += event.data
            if len(self._body) > _LONGEST_BODY:
                raise UnreachableError(
                    "proxy.answer", "the answer is too long", rule=f"at most {_LONGEST_BODY} bytes", remedy="use gRPC"
                )
            if not self._memory.take(len(event.data)):
                raise UnreachableError(
                    "proxy.memory", "the proxy has no memory for the answer at the moment", remedy="ask again later"
                )
            self._charged += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert self._head is not None
            assert self._answer is not None
            fields = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in self._head.headers)
            self._answer.set_result(RestAnswer(self._head.status_code, fields, bytes(self._body)))
            self._body.clear()
            return False
        elif event is h11.PAUSED:
            raise cut()  # another protocol was agreed upon, or a tunnel
        return event is not h11.NEED_DATA

    def _fail(self, error: UnreachableError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(error)
