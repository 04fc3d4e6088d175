"""Requests to the status address: each connection gets one well-formed answer or none, and nothing but what it asked.

The log behind it is the one of :mod:`fuzz.targets.proofs`. Oracle: h11 as a client.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, cast

import h11

from ensconce.audit.log import AuditLog
from ensconce.audit.proofs import ConsistencyProof, parse_consistency
from ensconce.errors import InputError
from ensconce.provisioning import status
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.public import Public
from ensconce.provisioning.threads import Threads
from fuzz.target import Target, holds
from fuzz.targets.proofs import COUNT, head, proof_between

__all__ = ["TARGET", "check"]

_STATUSES = {200, 400, 404, 405, 413, 431, 501, 503, 505}


def check(data: bytes) -> bool:
    """Hold a conversation with a client that sends this and leaves."""
    writer = _Writer()
    try:
        _loop().run_until_complete(_converse(data, writer))
    except (OSError, h11.ProtocolError):
        return False  # what the server closes the connection for
    if not writer.sent:
        return False
    # Told apart by method only for HEAD, which is refused as a GET is answered: with a body that may be read.
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "status")]))
    client.receive_data(writer.sent)
    client.receive_data(b"")
    response, body = client.next_event(), b""
    holds(isinstance(response, h11.Response), "no answer of HTTP's")
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    holds(isinstance(event, h11.EndOfMessage) and not client.trailing_data[0], "more than one answer")
    holds(response.status_code in _STATUSES, f"status {response.status_code}")
    if response.status_code == 200 and body.startswith(b'{"first"'):
        proof = parse_consistency(body)
        holds(proof == proof_between(proof.first, proof.second), "another proof")
        holds(b"first" in data and b"second" in data and b"GET" in data, "a proof that nobody asked for")
    return response.status_code == 200


async def _converse(data: bytes, writer: _Writer) -> None:
    reader = asyncio.StreamReader(limit=8 * 1024)
    reader.feed_data(data)
    reader.feed_eof()
    await status._converse(reader, cast(asyncio.StreamWriter, writer), _public().answer)


class _Writer:
    """What a StreamWriter does for a client that takes everything."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        pass

    def write_eof(self) -> None:
        pass


class _Log:
    """As much of the log as the status address asks for."""

    def head(self) -> Any:
        return head(COUNT)

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        if not 0 < first <= second <= COUNT:
            raise InputError("merkle.range", "the log has no such entry")
        return proof_between(first, second)


class _Here:
    """Runs at once what the server runs in a thread."""

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)


@functools.cache
def _public() -> Public:
    return Public(cast(AuditLog, _Log()), Metrics(), cast(Threads, _Here()), lambda: None)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def seeds() -> dict[str, bytes]:
    """A request for everything that there is."""
    paths = ("healthz", "readyz", "metrics", "log/head", "log/consistency?first=5&second=11")
    made = {}
    for path in paths:
        name = path.partition("?")[0].replace("/", "-")
        made[f"good-{name}"] = f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    return made | {
        "good-old": b"GET /healthz HTTP/1.0\r\n\r\n",
        "post": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        "range": b"GET /log/consistency?first=7&second=3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "bracket": b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    }


TARGET = Target(
    "status",
    check,
    seeds,
    max_size=10_000,
    words=(b"GET ", b" HTTP/1.1\r\n", b"\r\n\r\n", b"Transfer-Encoding: chunked", b"first=", b"&second="),
)
