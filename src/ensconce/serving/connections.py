"""The connections of a server, whatever is spoken on them: listeners, how many may be open, a clock, and their end."""

from __future__ import annotations

import asyncio
import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from ensconce.addresses import Address
from ensconce.serving.crowd import Member, least_wanted
from ensconce.serving.handshakes import Handshakes
from ensconce.serving.tls import TlsContext

__all__ = ["ConnectionServer", "client_of", "send_at_once"]

_TICK_SECONDS: Final = 0.25
_HANDSHAKES: Final = 4
"""There may be one for so many connections."""


class _Tended(Member, Protocol):
    """A connection, as its server sees it."""

    def tick(self, now: float) -> None:
        """Look at the clock."""

    def abort(self) -> None:
        """Close now."""


ConnectionT = TypeVar("ConnectionT", bound=_Tended)


class ConnectionServer(ABC, Generic[ConnectionT]):
    """Listens on sockets, and drives their connections until it is stopped."""

    def __init__(self, *, most: int, handshake: float, age: float, chance: Callable[[], float] = random.random) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            most: connections open at once; beside them, a quarter as many TLS handshakes may be under way.
            handshake: seconds for the TLS handshake.
            age: seconds after which a connection is to end.
            chance: a number from 0 to 1, 1 excluded, for each connection.
        """
        self._most, self._age, self._chance = most, age, chance
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []
        self._handshakes = Handshakes(self.connection, max(1, most // _HANDSHAKES), handshake)
        self._connections: set[ConnectionT] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._clock = self._loop.call_later(_TICK_SECONDS, self._again)
        self.is_stopping = False

    @abstractmethod
    def connection(self) -> asyncio.BaseProtocol:
        """Make a connection, which calls :meth:`joined` when it is there and :meth:`left` when it is gone."""

    @abstractmethod
    def drain(self, connection: ConnectionT, grace: float) -> None:
        """Let a connection end once it has answered what it was asked, within ``grace`` seconds."""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def age(self) -> float:
        """Seconds after which the next connection is to end: within 10 % of the limit, as with gRPC's servers.

        Clients that came together, when a replica began or ended, do not come back together again and again.
        """
        return self._age * (0.9 + 0.2 * self._chance())

    async def listen(self, listener: socket.socket, context: TlsContext | None) -> None:
        """Serve on a listening socket (TCP or UNIX), with TLS or without."""
        if context is not None:
            self._handshakes.listen(listener, context)
            return
        make = self._loop.create_unix_server if listener.family == socket.AF_UNIX else self._loop.create_server
        self._listeners.append(await make(self.connection, sock=listener))

    def joined(self, connection: ConnectionT) -> bool:
        """A connection is there; False when it may not stay: there are too many, and all of them are busy."""
        if len(self._connections) >= self._most:
            other = least_wanted(self._connections)
            if other is None:
                return False
            other.abort()
        self._connections.add(connection)
        self._is_empty.clear()
        return True

    def left(self, connection: ConnectionT) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def tick(self) -> None:
        """Look at the clock; called four times a second."""
        now = self._loop.time()
        for connection in list(self._connections):
            connection.tick(now)

    def _again(self) -> None:
        self.tick()
        self._clock = self._loop.call_later(_TICK_SECONDS, self._again)

    async def stop(self, grace: float) -> None:
        """Take no more connections, answer what was asked for ``grace`` seconds at most, and close everything."""
        self.is_stopping = True
        for listener in self._listeners:
            listener.close()
        self._handshakes.close()
        for connection in list(self._connections):
            self.drain(connection, grace)
        try:
            await asyncio.wait_for(self._is_empty.wait(), grace)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._is_empty.wait()
        await self._handshakes.wait_closed()
        self._clock.cancel()


def send_at_once(transport: asyncio.BaseTransport) -> None:
    """Let the system send what is written without waiting for more (TCP_NODELAY).

    asyncio does so only for listeners made with a protocol's number; without, answers wait 40 ms at times.
    """
    own = transport.get_extra_info("socket")
    if own is not None and own.family != socket.AF_UNIX:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def client_of(peername: object) -> tuple[str, str]:
    """The client's host, and its address as it is told: ``192.0.2.1:50000``, ``[2001:db8::1]:50000`` or ``local``.

    IPv4 that comes to a socket of both kinds (::ffff:192.0.2.1) is told as what it is.

    Args:
        peername: as sockets have it.
    """
    if not isinstance(peername, tuple):
        return "", "local"
    host = peername[0].removeprefix("::ffff:")
    return host, str(Address(host, peername[1]))
