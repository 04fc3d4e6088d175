"""Requests over HTTP/1.1, whose connections stay open: attested, TLS, or in the clear.

A reader of our own: a general library takes more processor time for a request than a small model does. It reads what
RFC 9112 has a server send for GET and POST: one head, and a body by length, in chunks, or until the connection ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import httpx

from ensconce.bench.tally import AnswerError
from ensconce.bench.targets.carrier import MAX_ANSWER, failed_check
from ensconce.bench.targets.dialect import Answer, Ask
from ensconce.client.seats import Seat
from ensconce.client.transport import AsyncAttestedTransport
from ensconce.errors import EnsconceError

__all__ = ["AttestedHttp", "Http"]

_MAX_HEAD: Final = 64 * 1024
_JOINED: Final = 64 * 1024
_TEXT: Final = 300
_LOST: Final = "http connection"
_NONSENSE: Final = "http protocol"

# Of the binary tensor data extension: where the JSON before binary tensors ends.
_JSON_SIZE: Final = "inference-header-content-length"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Response(NamedTuple):
    status: int
    body: bytes
    json_size: int | None
    is_kept: bool


class Http:
    """Connections to one place, each with one request at a time, as many as there are requests under way.

    Args:
        dial: opens one.
        host: for the header field.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]], host: str) -> None:
        self._dial, self._host = dial, host
        self._idle: list[Streams] = []
        self._heads: dict[tuple[str, int, int | None], bytes] = {}

    async def ask(self, ask: Ask, timeout: float) -> Answer:
        """See :class:`ensconce.bench.targets.carrier.Carrier`."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._exchange(ask)
        except TimeoutError as error:
            raise AnswerError("http timeout", f"no answer after {timeout:g} s") from error
        except (OSError, EOFError) as error:
            raise AnswerError(_LOST, str(error) or type(error).__name__) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise AnswerError(_NONSENSE, str(error)) from error
        if response.status != 200:
            raise AnswerError(f"http {response.status}", response.body[:_TEXT].decode(errors="replace"))
        return Answer(response.body, None, response.json_size)

    async def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _exchange(self, ask: Ask) -> _Response:
        head = self._head(ask)
        while self._idle:
            streams = self._idle.pop()
            try:
                return await self._on(streams, head, ask.body)
            except asyncio.IncompleteReadError as error:
                # A server may end a connection that nobody used; then it has not looked at this request.
                if error.partial:
                    raise
            except ConnectionError:
                pass
        return await self._on(await self._dial(), head, ask.body)

    async def _on(self, streams: Streams, head: bytes, body: bytes | None) -> _Response:
        reader, writer = streams
        is_kept = False
        try:
            # A small body goes out with its head: two packets would be two turns of everybody on the way.
            if body is not None and len(body) <= _JOINED:
                writer.write(head + body)
            else:
                writer.write(head)
                writer.write(body or b"")
            await writer.drain()
            response = await _read(reader)
            is_kept = response.is_kept
        finally:
            if is_kept:
                self._idle.append(streams)
            else:
                writer.close()
        return response

    def _head(self, ask: Ask) -> bytes:
        size = -1 if ask.body is None else len(ask.body)
        key = (ask.path, size, ask.json_size)
        if (head := self._heads.get(key)) is None:
            fields = [f"{'GET' if size < 0 else 'POST'} {ask.path} HTTP/1.1", f"host: {self._host}"]
            if size >= 0:
                kind = "json" if ask.json_size is None else "octet-stream"
                fields += [f"content-type: application/{kind}", f"content-length: {size}"]
            if ask.json_size is not None:
                fields.append(f"{_JSON_SIZE}: {ask.json_size}")
            head = self._heads[key] = ("\r\n".join(fields) + "\r\n\r\n").encode("ascii")
        return head


class AttestedHttp:
    """Each request goes to the accepted replica with the fewest under way.

    Args:
        transport: its pool says where; HTTP through its tunnels is this module's.
        host: for the header field.
    """

    def __init__(self, transport: AsyncAttestedTransport, host: str) -> None:
        self._transport, self._host = transport, host
        self._https: WeakKeyDictionary[Seat[httpx.AsyncHTTPTransport], Http] = WeakKeyDictionary()

    async def ask(self, ask: Ask, timeout: float) -> Answer:
        """See :class:`ensconce.bench.targets.carrier.Carrier`."""
        try:
            lease = self._transport.pool.lease()
        except EnsconceError as error:
            raise failed_check(error) from error
        with lease:
            seat = lease.seat
            assert isinstance(seat, Seat)
            http = self._https.get(seat)
            if http is None:
                path = seat.tunnel.path
                http = self._https[seat] = Http(lambda: asyncio.open_unix_connection(path, limit=_MAX_HEAD), self._host)
            try:
                return (await http.ask(ask, timeout))._replace(replica_id=lease.replica_id)
            except AnswerError as failure:
                if failure.kind == _LOST and lease.failure is not None:
                    raise failed_check(lease.failure) from lease.failure
                raise

    async def close(self) -> None:
        """Close the connections."""
        for http in self._https.values():
            await http.close()
        await self._transport.aclose()


def dialler(
    host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None
) -> Callable[[], Awaitable[Streams]]:
    """Opens connections to one address."""
    name = (server_name or host) if tls is not None else None
    return lambda: asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=_MAX_HEAD)


async def _read(reader: asyncio.StreamReader) -> _Response:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isascii() or not rest[:3].isdecimal():
            raise ValueError(f"not HTTP/1.1: {head[0][:80]}")
        if not (status := int(rest[:3])) < 200:
            break
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    is_kept = version == "HTTP/1.1" and "close" not in fields.get("connection", "").lower()
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = await _chunks(reader)
    elif status in (204, 304):
        body = b""
    elif (length := fields.get("content-length")) is not None:
        body = await reader.readexactly(_size(length, 10))
    else:
        body, is_kept = await _until_the_end(reader), False
    told = fields.get(_JSON_SIZE)
    return _Response(status, body, None if told is None else _size(told, 10), is_kept)


async def _until_the_end(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while part := await reader.read(_MAX_HEAD):
        parts += part
        _bounded(len(parts))
    return bytes(parts)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while size := _size((await reader.readuntil(b"\r\n")).split(b";")[0].strip().decode("latin-1"), 16):
        _bounded(len(parts) + size)
        parts += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk has no end")
    while await reader.readuntil(b"\r\n") != b"\r\n":  # trailers
        pass
    return bytes(parts)


def _size(text: str, base: int) -> int:
    if not text.isalnum() or not text.isascii():
        raise ValueError(f"not a length: {text[:20]}")
    return _bounded(int(text, base))


def _bounded(size: int) -> int:
    if size > MAX_ANSWER:
        raise ValueError(f"an answer of {size} bytes, at most {MAX_ANSWER} are taken")
    return size
