"""A call with any number of requests and responses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

from ensconce.serving.grpc import status
from ensconce.serving.grpc.call import Call, Front, Streaming
from ensconce.serving.grpc.framing import PREFIX_SIZE, read_prefix, unzip, unzipped_size, write_prefix
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.headers import Request
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["StreamingCall"]

_LONGEST_REQUEST: Final = 256 * 1024
"""Well within a stream's window: what streams here are small questions."""


class StreamingCall(Call):
    """Runs its handler in a task; requests wait in the stream's window, responses in the peer's."""

    __slots__ = ("_begun", "_buffer", "_is_ended", "_method", "_news", "_waiting")

    def __init__(
        self, front: Front, connection: Connection, stream_id: int, request: Request, method: Streaming
    ) -> None:
        """Made by the connection."""
        super().__init__(front, connection, stream_id, request)
        self._method = method
        self._buffer = bytearray()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._news = asyncio.Event()
        self._is_ended = self._begun = False
        self.patient = True

    def begin(self, *, ended: bool) -> None:
        """Start the handler."""
        self._is_ended = ended
        self._task = asyncio.get_running_loop().create_task(self._run())

    def on_data(self, parts: Sequence[bytes | memoryview], *, ended: bool) -> None:
        """Some messages, or parts of one."""
        buffer = self._buffer
        for part in parts:
            buffer += part
        try:
            while len(buffer) >= PREFIX_SIZE:
                prefix = read_prefix(bytes(buffer[:PREFIX_SIZE]), _LONGEST_REQUEST, encoding=self._encoding)
                end = PREFIX_SIZE + prefix.length
                if len(buffer) < end:
                    break
                message = bytes(buffer[PREFIX_SIZE:end])
                del buffer[:end]
                if prefix.is_compressed:
                    message = unzip(message, unzipped_size(message, _LONGEST_REQUEST))
                self._waiting.append((message, end))
            if ended and buffer:
                raise RequestError(Code.INTERNAL, "The last message is cut off")
        except RequestError as error:
            self.refuse(error.code, error.problem)
            return
        self._is_ended = ended
        self.patient = not buffer
        if buffer:
            self.started = self.connection.now()
        self._news.set()

    def on_room(self) -> None:
        """What was sent is on its way."""
        self._news.set()

    def on_drain(self) -> None:
        """The connection ends; a call that may last for ever must not keep it."""
        self.refuse(Code.UNAVAILABLE, "The server is stopping")

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            while not self._waiting:
                if self._is_ended:
                    return
                await self._wait()
            message, size = self._waiting.popleft()
            self.consumed(size)
            yield message

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _run(self) -> None:
        try:
            async for response in self._method.handle(self._requests()):
                self._send(write_prefix(len(response), self._front.message_bytes) + response)
                while self.unsent:
                    await self._wait()
        except (Exception, asyncio.CancelledError) as error:
            self._task = None
            self.failed(error)
            return
        self._task = None
        self.end()
        if self.is_closed:
            return
        if not self._begun:
            self.connection.output.send_head(self, status.HEAD)
        self.connection.output.send_trailers(self, status.TRAILERS_OK)

    def _send(self, data: bytes) -> None:
        if self.is_closed:
            raise asyncio.CancelledError
        if not self._begun:
            self._begun = True
            self.connection.output.send_head(self, status.HEAD)
        self.connection.output.send_body(self, data)

    def refuse(self, code: Code, text: str) -> None:
        """End the call with a status other than OK, after what has been sent."""
        if self._begun and not self.is_closed and not self.local_done:
            self.connection.output.send_trailers(self, status.trailers(code, text))
            self.end()
        else:
            super().refuse(code, text)
