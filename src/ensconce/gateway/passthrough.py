"""The embedded pass-through: ``python -m ensconce.gateway.passthrough``, started by :mod:`ensconce.gateway.embedded`.

It is driven by JSON lines on standard input (``start``, ``reload``, ``count``), answers each with one on standard
output, and ends when standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ensconce.addresses import Address
from ensconce.errors import UnreachableError
from ensconce.gateway.balance import Balancer
from ensconce.gateway.clienthello import NEED_MORE, parse_sni
from ensconce.gateway.relay import CHUNK, Stream, close, join, keep_alive
from ensconce.times import utc_text

__all__ = ["CONNECT_S", "DRAIN_S", "HELLO_S", "Passage", "main"]

HELLO_S = 10.0
"""A client has this long to send its whole ClientHello."""
CONNECT_S = 2.0
"""A replica has this long to accept a connection."""
DRAIN_S = 2.0
"""At the end, connections have this long to end by themselves."""
_MAX_CONNECTIONS = 4096  # Those beyond it are closed at once.
_MAX_LINE = 1 << 20

_log = logging.getLogger("ensconce.gateway")


class Passage:
    """One listener: reads the name, picks a replica, passes bytes.

    Args:
        domain: the only server name that is passed on, in lower case.
        record: called with one line of the access log when a connection has ended.
    """

    def __init__(self, domain: str, record: Callable[[Mapping[str, Any]], None]) -> None:
        self.balancer = Balancer(time.monotonic)
        self._domain = domain
        self._record = record
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket, targets: Sequence[Address]) -> None:
        """Accept connections on ``listener``, a listening socket, and pass them to ``targets``."""
        self.balancer.replace(targets)
        self._server = await asyncio.start_server(self._accepted, sock=listener, limit=CHUNK)

    async def stop(self, drain_s: float) -> None:
        """Close the listener, wait up to ``drain_s`` seconds for connections to end, then cut them."""
        if self._server is not None:
            self._server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=drain_s)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Stream(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        entry: dict[str, Any] = {
            "time": utc_text(time.time()),
            "sni": "",
            "upstream": "",
            "bytes_in": 0,
            "bytes_out": 0,
            "seconds": 0.0,
            "status": 500,
        }
        began = time.monotonic()
        try:
            if len(self._open) <= _MAX_CONNECTIONS:
                await self._serve(client, entry)
        except (ConnectionError, TimeoutError, UnreachableError) as error:
            entry["status"] = 400
            _log.info("connection refused: %s", error or type(error).__name__)
        except asyncio.CancelledError:
            # Only `stop` cancels; ending quietly lets the connection be closed and logged like any other.
            pass
        finally:
            await close(client)
            entry["seconds"] = round(time.monotonic() - began, 3)
            self._record(entry)
            self._open.discard(task)

    async def _serve(self, client: Stream, entry: dict[str, Any]) -> None:
        keep_alive(client.writer)
        async with asyncio.timeout(HELLO_S):
            hello, name = await _read_name(client.reader)
        entry["sni"] = name or ""
        if name != self._domain:
            _log.info("connection refused: %r is not the service's name", name)
            return
        for target in self.balancer.order():
            # Counted while it is being made, so that connections that arrive together spread as well.
            with self.balancer.holding(target):
                try:
                    async with asyncio.timeout(CONNECT_S):
                        server = Stream(*await asyncio.open_connection(*target, limit=CHUNK))
                except OSError as error:
                    _log.warning("replica %s does not accept: %s", target, error or "timed out")
                    self.balancer.failed(target)
                    entry["status"] = 502
                    continue
                entry["upstream"], entry["status"] = str(target), 200
                keep_alive(server.writer)
                entry["bytes_in"] = len(hello)
                try:
                    server.writer.write(hello)
                    await join(client, server, _counter(entry, "bytes_in"), _counter(entry, "bytes_out"))
                finally:
                    await close(server)
                return


def _counter(entry: dict[str, Any], direction: str) -> Callable[[bytes], None]:
    def add(chunk: bytes) -> None:
        entry[direction] += len(chunk)

    return add


async def _read_name(reader: asyncio.StreamReader) -> tuple[bytes, str | None]:
    hello = b""
    while True:
        part = await reader.read(CHUNK)
        if not part:
            raise UnreachableError("tls.client_hello", "the client went away before its ClientHello was complete")
        hello += part
        name = parse_sni(hello)
        if name is not NEED_MORE:
            return hello, name


async def _commands(answer: Callable[[Mapping[str, Any]], None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    passages: dict[str, Passage] = {}
    with contextlib.ExitStack() as stack:
        while line := await reader.readline():
            request = json.loads(line)
            match request["do"]:
                case "start":
                    log = stack.enter_context(Path(request["access_log"]).open("a", encoding="utf-8"))
                    for api, number in request["listeners"].items():
                        passages[api] = Passage(request["domain"], _recorder(log))
                        listener = socket.socket(fileno=number)
                        await passages[api].start(listener, _targets(request, api))
                    answer({"ok": True})
                case "reload":
                    for api, passage in passages.items():
                        passage.balancer.replace(_targets(request, api))
                    answer({"ok": True})
        async with asyncio.TaskGroup() as group:
            for passage in passages.values():
                group.create_task(passage.stop(DRAIN_S))


def _targets(request: Mapping[str, Any], api: str) -> list[Address]:
    return [Address(host, port) for host, port in request["pools"].get(api, [])]


def _recorder(log: IO[str]) -> Callable[[Mapping[str, Any]], None]:
    def record(entry: Mapping[str, Any]) -> None:
        log.write(json.dumps(entry, separators=(",", ":")) + "\n")
        log.flush()

    return record


def main() -> None:
    """Serve until standard input ends."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def answer(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    asyncio.run(_commands(answer))


if __name__ == "__main__":
    main()
