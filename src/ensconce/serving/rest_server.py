"""The HTTP server under the REST front: uvicorn on a given socket, with connections that age, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["RestServer"]

# Before the listener closes, clients that are busy get this long to hear "Connection: close" with an answer.
_NOTICE_SECONDS: Final = 0.25
_MOST_CONNECTIONS: Final = 1024
_ACCEPTED_AT: Final = "ensconce.accepted_at"


class _DatedConnection(H11Protocol):
    """A connection that tells the application when it was accepted."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.app_state = {**self.app_state, _ACCEPTED_AT: self.loop.time()}


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


class RestServer:
    """Serves an ASGI application over HTTP/1.1 and TLS until it is stopped."""

    def __init__(self, application: ASGIApp, *, most_age: float) -> None:
        """Prepare; nothing is served yet.

        Args:
            application: what answers.
            most_age: seconds after which a connection is closed with its next answer, so that clients spread over
                replicas that came later.
        """
        self._application = application
        self._most_age = most_age
        self._draining = False
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Serve on a bound socket; returns when connections are accepted."""
        config = uvicorn.Config(
            self._aging,
            http=_DatedConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # What it logs leaves the process, and may quote what a client sent.
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=60,
            limit_concurrency=_MOST_CONNECTIONS,
            ssl_context_factory=lambda _config, _default: context,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        up = asyncio.create_task(self._server.is_up.wait())
        await asyncio.wait({up, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            up.cancel()
            await self._task

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection."""
        if self._server is None or self._task is None:
            return
        self._draining = True
        if self._server.server_state.connections:
            await asyncio.sleep(min(_NOTICE_SECONDS, grace))
        self._server.config.timeout_graceful_shutdown = max(1, math.ceil(grace))
        self._server.should_exit = True
        await self._task
        self._server = self._task = None

    async def _aging(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_old(scope["state"]):
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._application(scope, receive, send_dated)

    def _is_old(self, state: dict[str, Any]) -> bool:
        return self._draining or asyncio.get_running_loop().time() - state[_ACCEPTED_AT] > self._most_age
