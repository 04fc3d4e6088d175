"""Replicas that tell what a test has them tell, a log that grows or is bent, and a dashboard that looks at them."""

from __future__ import annotations

import asyncio
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.addresses import Address
from ensconce.audit.folder import FolderLog
from ensconce.audit.log import AuditLog
from ensconce.audit.proofs import ConsistencyProof
from ensconce.dashboard.program import Dashboard, Running
from ensconce.dashboard.watcher import Sources


@pytest.fixture
def telling(tmp_path: Path) -> Iterator[Callable[[Any, dict[str, bytes]], Address]]:
    """Starts REST servers that have these pages, with a replica's certificate."""
    made: list[http.server.ThreadingHTTPServer] = []

    def make(who: Any, pages: dict[str, bytes]) -> Address:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self) -> None:
                body = pages.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pem = tmp_path / f"{len(made)}.pem"
        pem.write_bytes(who.chain_pem + who.key_pem)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made.append(server)
        return Address("127.0.0.1", server.server_address[1])

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


@dataclass
class Log:
    """An owner's log in a folder, and what a server that can show another one answers for it."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        self.storage = FolderLog(self.folder)
        self.written = self.shown = AuditLog.open(self.storage, self.key, lambda: 1_800_000_000)

    def fork(self) -> None:
        """Show another log from now on, of the same owner."""
        self.shown = AuditLog.open(FolderLog(self.folder.with_name("other")), self.key, lambda: 1_800_000_000)
        self.shown.append_many([("key.added", {"key_id": f"other/{number}"}) for number in range(20)])

    def head(self) -> bytes:
        return self.shown.head().to_bytes()

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        return self.shown.consistency(first, second)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


class Started:
    """A dashboard that runs in a thread of the test; ``url`` is what it printed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dashboard: Dashboard) -> None:
        self._loop = loop
        asyncio.run_coroutine_threadsafe(self._start(dashboard), loop).result(10)

    async def _start(self, dashboard: Dashboard) -> None:
        self.running = Running(dashboard)
        self.url = await self.running.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.running.stop(), self._loop).result(10)


@pytest.fixture
def dashboard() -> Iterator[Callable[..., Started]]:
    """Starts dashboards."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Started] = []

    def make(sources: Sources, **options: Any) -> Started:
        given = {"name": "digits.example.test", "sources": sources, "listen": Address("127.0.0.1", 0), **options}
        made.append(Started(loop, Dashboard(**given)))
        return made[-1]

    yield make
    for each in made:
        each.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
