"""TLS handshakes under way, and first words: connections that are none yet, of which strangers could begin any number.

asyncio's own server neither counts them nor ends one for another's sake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from ensconce.serving.crowd import least_wanted
from ensconce.serving.opening import Opening
from ensconce.serving.tls import TlsContext

__all__ = ["Handshakes"]

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 64
"""Connections that are taken before those that are there have their turn."""
_PAUSE_SECONDS: Final = 1.0
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FAILING_SECONDS: Final = 1.0


@dataclass(frozen=True, eq=False)
class _Handshake:
    """One that is under way: a :class:`~ensconce.serving.crowd.Member` of them."""

    accepted: socket.socket
    host: str
    waits_since: float | None

    def abort(self) -> None:
        """Let it fail."""
        with suppress(OSError):
            self.accepted.shutdown(socket.SHUT_RDWR)


class Handshakes:
    """Takes connections from listening sockets, and shakes hands with them."""

    def __init__(self, connection: Callable[[], asyncio.BaseProtocol], most: int, timeout: float) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            connection: makes what is told of a connection once its handshake is done, and of no other.
            most: handshakes at once; for another, one has to go, of the address that has the most of them.
            timeout: seconds for each.
        """
        self._connection, self._most, self._timeout = connection, most, timeout
        self._loop = asyncio.get_running_loop()
        self._listeners: set[socket.socket] = set()
        self._under_way: set[_Handshake] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def listen(self, listener: socket.socket, context: TlsContext) -> None:
        """Take what comes to a listening socket, which is closed at the end."""
        listener.setblocking(False)
        self._listeners.add(listener)
        self._loop.add_reader(listener, self._take, listener, context)

    def close(self) -> None:
        """Take no more, and let those fail that are under way."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        for handshake in self._under_way:
            handshake.abort()

    async def wait_closed(self) -> None:
        """Wait until none is under way any more."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FAILING_SECONDS)

    def _take(self, listener: socket.socket, context: TlsContext) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("no connection can be taken for a while: %s", error.strerror)
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_SECONDS, self._take_again, listener, context)
                return
            accepted.setblocking(False)
            self._begin(accepted, address[0] if isinstance(address, tuple) else "", context)

    def _take_again(self, listener: socket.socket, context: TlsContext) -> None:
        if listener in self._listeners:
            self.listen(listener, context)

    def _begin(self, accepted: socket.socket, host: str, context: TlsContext) -> None:
        if len(self._under_way) >= self._most and (other := least_wanted(self._under_way)) is not None:
            other.abort()
            self._under_way.discard(other)
        handshake = _Handshake(accepted, host, self._loop.time())
        self._under_way.add(handshake)
        task = self._loop.create_task(self._shake(handshake, context))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, handshake))

    async def _shake(self, handshake: _Handshake, context: TlsContext) -> None:
        with suppress(OSError):  # TLS that is none, a client that is gone, or slow, or has to go
            _, protocol = await self._loop.connect_accepted_socket(
                lambda: context.opened(self._connection),
                handshake.accepted,
                ssl=context,  # type: ignore[arg-type]  # asyncio asks of it only what it has
                ssl_handshake_timeout=self._timeout,
            )
            if isinstance(protocol, Opening):
                await protocol.finish(self._timeout)

    def _ended(self, handshake: _Handshake, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._under_way.discard(handshake)
