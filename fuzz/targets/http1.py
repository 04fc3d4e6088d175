"""HTTP/1.1 as the REST front reads it: bytes of a connection become requests.

However the bytes are cut, the same requests come out; each is one that h11 (as a server) reads as well, in the same
place with the same body; memory that bodies took is given back; and there is an answer to each.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any

import h11

from ensconce.serving.http1.connection import Connection
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.http1.server import HttpServer
from fuzz.target import Havoc, Target, holds

__all__ = ["TARGET", "check"]

_LIMITS = Http1Limits(body_bytes=8 * 1024, server_bytes=8 * 1024)
_LOOP = asyncio.new_event_loop()
_Seen = tuple[str, bytes]


class _Transport(asyncio.Transport):
    """A peer that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        holds(not self.closed, "something is written to a connection that is closed")
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def _respond(error: HttpError) -> Response:
    return Response(error.status, error.problem.encode())


async def _requests(pieces: list[bytes]) -> list[_Seen]:
    seen: list[_Seen] = []

    def handle(request: Request) -> Response:
        seen.append((f"{request.method} {request.target}", request.body))
        return Response(200, b"{}")

    server = HttpServer(handle, _respond, _LIMITS)
    connection, transport = Connection(server, server.age()), _Transport()
    connection.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            connection.data_received(piece)
    answers = transport.written.count(b"\r\ndate: ")
    holds(len(seen) <= answers <= len(seen) + 1, "requests and answers are not one for one")
    connection.connection_lost(None)
    holds(server.memory.used == 0, "memory was not given back")
    await server.stop(0)
    return seen


def _other(data: bytes) -> list[_Seen]:
    """What h11 reads, without the empty lines before requests, which it refuses and RFC 9112 wants ignored."""
    seen: list[_Seen] = []
    while True:
        while data.startswith(b"\r\n"):
            data = data[2:]
        # Another connection for each request: h11 keeps none of HTTP/1.0.
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        target, body = "", b""
        try:
            connection.receive_data(data)
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    target = f"{event.method.decode()} {event.target.decode()}"
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return seen
        except h11.ProtocolError:
            return seen
        seen.append((target, body))
        data = connection.trailing_data[0]


def check(data: bytes) -> bool:
    """Read a connection; see the module."""
    if b"content-encoding" in data.lower():
        return False  # decompressed in a thread
    whole = _LOOP.run_until_complete(_requests([data]))
    cut = zlib.crc32(data) % (len(data) + 1)
    holds(_LOOP.run_until_complete(_requests([data[:cut], data[cut:]])) == whole, "it matters where bytes are cut")
    if len(data) < 512:
        single = [data[at : at + 1] for at in range(len(data))]
        holds(_LOOP.run_until_complete(_requests(single)) == whole, "single bytes are read otherwise")
    other = _other(data)
    for ours, theirs in zip(whole, other, strict=False):
        holds(ours[1] == theirs[1], "another body than h11's")
        # We take the path of an absolute target, h11 the whole.
        holds(theirs[0].endswith(ours[0].partition(" ")[2]) or ours[0].endswith(" /"), "another target than h11's")
    holds(len(whole) <= len(other), "a request that h11 does not see")
    return bool(whole)


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Bend one line, or put lines in other places."""
    lines = data.split(b"\r\n")
    at = rng.randrange(len(lines))
    choice = rng.random()
    if choice < 0.3:
        lines[at] = havoc(lines[at])
    elif choice < 0.5:
        lines.insert(at, rng.choice(_LINES))
    elif choice < 0.7:
        lines[at] = rng.choice(_LINES)
    elif choice < 0.85:
        lines.insert(at, rng.choice(lines))
    else:
        return havoc(data)
    return b"\r\n".join(lines)


_LINES = [
    b"",
    b"0",
    b"5",
    b"GET /a HTTP/1.1",
    b"POST http://a/v1 HTTP/1.0",
    b"Host: a",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:\tchunked ",
    b"Transfer-Encoding: identity",
    b" folded",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"3;a=b",
    b"abcde",
]


def seeds() -> dict[str, bytes]:
    """Requests of each kind, and some that smuggle."""
    head = b"POST /a HTTP/1.1\r\nHost: a\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        "good-get": b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "good-old": b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2,
        "good-length": head + b"Content-Length: 5\r\n\r\nabcde" + head + b"\r\n",
        "good-chunks": chunked + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n" + head + b"\r\n",
        "good-absolute": b"GET http://a:1/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
        "good-close": head + b"Connection: close\r\n\r\n" + head + b"\r\n",
        "good-expect": head + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\na",
        "both": head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        "folded": head + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bare": b"GET / HTTP/1.1\nHost: a\n\n",
        "size": chunked + b"0x5\r\nabcde\r\n0\r\n\r\n",
        "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }


TARGET = Target("http1", check, seeds, _mutate, max_size=8192, words=(b"\r\n", b"chunked", b"Content-Length: "))
