"""One call: a request message in, a response message out, with a deadline, and cancelled when nobody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from ensconce.serving.grpc import status
from ensconce.serving.grpc.framing import (
    PREFIX_SIZE,
    Prefix,
    read_prefix,
    read_timeout,
    unzip,
    unzipped_size,
    write_prefix,
)
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.frames import ErrorCode
from ensconce.serving.http2.headers import Request
from ensconce.serving.http2.stream import Stream
from ensconce.serving.manager import LoadedServable
from ensconce.serving.observing import Answered, Method, Observe
from ensconce.serving.tls_object import TlsObject
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["Call", "Front", "Message", "Note", "Streaming", "Tell", "Unary", "UnaryCall"]


@dataclass(slots=True)
class Note:
    """What a handler learns of a call, for those who count.

    Attributes:
        model: the name that was asked for.
        loaded: what answers.
        signature: of it.
        channel: the TLS connection that it came on, if it is one.
        code: how the call ended, where the answer tells so inside.
    """

    model: str = ""
    loaded: LoadedServable | None = None
    signature: str = ""
    channel: TlsObject | None = None
    code: Code = Code.OK


Message = bytes | bytearray | memoryview
"""Views are of memory that nothing else is put into."""
Handle = Callable[[Message, Note], Coroutine[Any, Any, bytes]]
Messages = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
Tell = Callable[[bytes | BaseException], object]
Quick = Callable[[Message, Note, Tell], Callable[[], object] | None]
"""Begins to answer at once, without a task, and gives a way to stop that; None where it cannot. Raises RequestError."""

_GRPC: Final = b"application/grpc"


@dataclass(frozen=True, slots=True)
class Unary:
    """A method with one request and one response, both serialized.

    Attributes:
        handle: answers, and notes what the call was about.
        name: under which calls are counted; empty where nobody counts.
        quick: asked first, if given.
    """

    handle: Handle
    name: Method = ""
    quick: Quick | None = None


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method with any number of requests and responses."""

    handle: Messages


@dataclass(frozen=True, slots=True)
class Front:
    """What all calls of a server have in common.

    Attributes:
        methods: by path.
        message_bytes: longest message, in either direction, compressed or not.
        small_bytes: messages up to this size are handled in the event loop, longer ones in ``threads``.
        threads: where long messages are read and written.
        observe: told of each call that is counted.
        knows: whether a model of this name is loaded.
    """

    methods: dict[bytes, Unary | Streaming]
    message_bytes: int
    small_bytes: int
    threads: Executor
    observe: Observe | None = None
    knows: Callable[[str], bool] = bool


class Call(Stream):
    """What unary and streaming calls share: how they begin, and how they end early."""

    __slots__ = ("_encoding", "_front", "_task", "_timer")

    def __init__(self, front: Front, connection: Connection, stream_id: int, request: Request) -> None:
        """Made by the connection."""
        super().__init__(connection, stream_id, request)
        self._front = front
        self._encoding = b""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def on_request(self, *, ended: bool) -> None:
        """Look at the header fields."""
        fields = self.request.fields
        if self.request.method != b"POST":
            self.connection.output.send_head(self, status.WRONG_METHOD, last=True)
            return
        media = fields.get(b"content-type", b"")
        if media != _GRPC and not media.startswith((b"application/grpc+", b"application/grpc;")):
            self.connection.output.send_head(self, status.UNSUPPORTED_MEDIA, last=True)
            return
        try:
            if (encoding := fields.get(b"grpc-encoding")) is not None:
                self._set_encoding(encoding)
            if (timeout := fields.get(b"grpc-timeout")) is not None:
                self._timer = asyncio.get_running_loop().call_later(read_timeout(timeout), self._expire)
            self.begin(ended=ended)
        except RequestError as error:
            self.refuse(error.code, error.problem)

    def _set_encoding(self, encoding: bytes) -> None:
        if encoding not in (b"identity", b"gzip"):
            raise RequestError(Code.UNIMPLEMENTED, f"Compression {encoding[:32].decode('ascii', 'replace')} is unknown")
        self._encoding = encoding

    def begin(self, *, ended: bool) -> None:
        """The header fields are good; to be overridden.

        Raises:
            RequestError: the call is refused.
        """
        raise NotImplementedError

    def refuse(self, code: Code, text: str) -> None:
        """End the call with a status other than OK, if it has not ended."""
        if not self.is_closed and not self.local_done:
            block = status.trailers_only(code, text, encodings=code is Code.UNIMPLEMENTED)
            self.connection.output.send_head(self, block, last=True)
            self.told(code)
        self.end()

    def told(self, code: Code, sent: int = 0) -> None:
        """The call ends like this; for those who count."""

    def end(self) -> None:
        """Nothing more happens on behalf of this call."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _expire(self) -> None:
        self.refuse(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def on_reset(self, _code: ErrorCode) -> None:
        """The client wants no answer any more."""
        self.told(Code.CANCELLED)
        self.end()

    def on_stalled(self) -> None:
        """The request does not arrive."""
        self.refuse(Code.DEADLINE_EXCEEDED, "The request did not arrive in time")

    def on_overflow(self) -> None:
        """The server holds as much as it can."""
        self.refuse(Code.RESOURCE_EXHAUSTED, "The server has no memory for more requests")

    def failed(self, error: BaseException) -> None:
        """End the call as an error of its handler has it."""
        if isinstance(error, RequestError):
            self.refuse(error.code, error.problem)
        elif isinstance(error, asyncio.CancelledError):
            self.refuse(Code.CANCELLED, "CANCELLED")
        else:
            self.refuse(Code.INTERNAL, unforeseen(error))


class UnaryCall(Call):
    """A call of a method with one request and one response."""

    __slots__ = ("_body", "_method", "_note", "_prefix", "_since", "_stop")

    def __init__(
        self, front: Front, connection: Connection, stream_id: int, request: Request, method: Unary | None
    ) -> None:
        """Made by the connection; ``method`` is None where there is no such method."""
        super().__init__(front, connection, stream_id, request)
        self._method = method
        self._body: bytearray | None = None
        self._prefix: Prefix | None = None
        self._note = Note(channel=connection.channel)
        self._stop: Callable[[], object] | None = None
        self._since = connection.now()

    def begin(self, *, ended: bool) -> None:
        """Wait for the message."""
        if self._method is None:
            # server_cc.cc has no text for it either.
            raise RequestError(Code.UNIMPLEMENTED, "")
        if ended:
            raise _not_one()

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        """Some of the message."""
        body = self._body
        data: Message
        if body is None and ended and len(parts) == 1:
            data = parts[0]
        else:
            if body is None:
                body = self._body = bytearray()
            # Joined as they come: parts of their own would take more memory than they bring where they are small.
            for part in parts:
                body += part
            data = body
        try:
            prefix = self._prefix
            if prefix is None:
                if self.total < PREFIX_SIZE:
                    if ended:
                        raise _not_one()
                    return
                prefix = self._prefix = read_prefix(data, self._front.message_bytes, encoding=self._encoding)
                if not ended and PREFIX_SIZE + prefix.length > self.total + self.receive_window:
                    self.expect(PREFIX_SIZE + prefix.length)
            if not ended:
                if self.total > PREFIX_SIZE + prefix.length:
                    raise _not_one()
                return
            if self.total != PREFIX_SIZE + prefix.length:
                raise _not_one()
        except RequestError as error:
            self.refuse(error.code, error.problem)
            return
        # A part that is all is bytes, or a view of what others will be put into.
        message = bytes(data[PREFIX_SIZE:]) if body is None else memoryview(body)[PREFIX_SIZE:]
        self._body = None
        self._since = self.connection.now()
        method = self._method
        assert method is not None
        if method.quick is not None and not prefix.is_compressed:
            try:
                self._stop = method.quick(message, self._note, self._answered)
            except Exception as error:  # it ends this call, and not its connection
                self.failed(error)
                return
            if self._stop is not None:
                return
        handle = self._unzipped if prefix.is_compressed else method.handle
        self._task = asyncio.get_running_loop().create_task(self._run(handle, message))

    def _answered(self, outcome: bytes | BaseException) -> None:
        if self._stop is None:
            return  # nobody wants it any more
        self._stop = None
        if isinstance(outcome, BaseException):
            self.failed(outcome)
        else:
            self._reply(outcome)

    def end(self) -> None:
        """Nothing more happens on behalf of this call."""
        super().end()
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    async def _unzipped(self, message: Message, note: Note) -> bytes:
        assert self._method is not None
        size = unzipped_size(message, self._front.message_bytes)
        if not self.connection.memory.take(self.connection, size):
            raise RequestError(Code.RESOURCE_EXHAUSTED, "The server has no memory for more requests")
        self.charged += size
        if size <= self._front.small_bytes:
            plain = unzip(message, size)
        else:
            plain = await asyncio.get_running_loop().run_in_executor(self._front.threads, unzip, message, size)
        return await self._method.handle(plain, note)

    async def _run(self, handle: Handle, message: Message) -> None:
        try:
            response = await handle(message, self._note)
        except (Exception, asyncio.CancelledError) as error:
            self._task = None
            self.failed(error)
        else:
            self._task = None
            self._reply(response)

    def _reply(self, response: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.is_closed:
            return
        try:
            start = write_prefix(len(response), self._front.message_bytes)
        except RequestError as error:
            self.refuse(error.code, error.problem)
            return
        self.connection.output.answer(self, status.HEAD, start, response, status.TRAILERS_OK)
        self.told(self._note.code, len(response))

    def told(self, code: Code, sent: int = 0) -> None:
        """The call ends like this; for those who count."""
        observe, method, note = self._front.observe, self._method, self._note
        if observe is None or method is None or not method.name:
            return
        loaded = note.loaded
        observe(
            Answered(
                "GRPC",
                method.name,
                note.model if loaded is not None or self._front.knows(note.model) else "",
                loaded.version if loaded is not None else None,
                note.signature,
                code,
                0,
                self.connection.now() - self._since,
                self.total,
                sent,
                self.connection.peer,
            )
        )


def _not_one() -> RequestError:
    # grpc/doc/statuscodes.md: another number of messages than the method has.
    return RequestError(Code.UNIMPLEMENTED, "This method takes exactly one message")
