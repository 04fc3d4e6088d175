"""Ways through a balancer that ends TLS, which share the calls as a pool's connections do.

A client cannot open a connection to a replica there; it can choose a route, which a balancer leads to one replica.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import grpc
import httpx

from ensconce.addresses import Address
from ensconce.client.leaf import Accepted
from ensconce.client.sealed import Sealer, not_sealing
from ensconce.client.seats import Lease
from ensconce.errors import EnsconceError, InputError
from ensconce.ratls.sealing import Statement

__all__ = ["Route", "Routes", "open_async_routes", "open_routes"]

_MOST_KNOWN = 1024
_LOST = (grpc.RpcError, httpx.TransportError)


class Sealing(Protocol):
    """A channel or transport over one route."""

    @property
    def sealer(self) -> Sealer:
        """Has the key."""

    def ask_key(self, nonce: bytes) -> Statement:
        """Ask for it."""


class AsyncSealing(Protocol):
    """The same on an event loop."""

    @property
    def sealer(self) -> Sealer:
        """Has the key."""

    def ask_key(self, nonce: bytes) -> Awaitable[Statement]:
        """Ask for it."""


ChannelT = TypeVar("ChannelT")
SealingT = TypeVar("SealingT", bound=Sealing)
AsyncSealingT = TypeVar("AsyncSealingT", bound=AsyncSealing)


def open_routes(sealings: Sequence[SealingT], close: Callable[[], object]) -> Routes[SealingT]:
    """Ask for the key of each route; when this returns, at least one was accepted.

    Args:
        sealings: each has a sealer of its own.
        close: closes what all of them go through.

    Raises:
        UnreachableError: ``sealed.none``: nobody names a key; or collateral is not to be had.
        EvidenceError, RefusedError: not one was accepted, and this is why the first was not.
    """
    failures: list[EnsconceError] = []
    for each in sealings:
        try:
            nonce = each.sealer.question()
            each.sealer.judge(each.ask_key(nonce), nonce)
        except (EnsconceError, *_LOST) as error:
            failures.append(_failure(error))
    return _routes(sealings, failures, close)


async def open_async_routes(sealings: Sequence[AsyncSealingT]) -> Routes[AsyncSealingT]:
    """As :func:`open_routes`; what they go through is closed by its own coroutine.

    Raises:
        EnsconceError: as there.
    """
    failures: list[EnsconceError] = []
    for each in sealings:
        try:
            nonce = each.sealer.question()
            await asyncio.to_thread(each.sealer.judge, await each.ask_key(nonce), nonce)
        except (EnsconceError, *_LOST) as error:
            failures.append(_failure(error))
    return _routes(sealings, failures, lambda: None)


def _routes(sealings: Sequence[Any], failures: list[EnsconceError], close: Callable[[], object]) -> Routes[Any]:
    if len(failures) == len(sealings):
        raise failures[0]
    return Routes([Route(each.sealer, each) for each in sealings], close)


def _failure(error: Exception) -> EnsconceError:
    if isinstance(error, EnsconceError):
        return error
    found = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
    failure = not_sealing(found)
    failure.__cause__ = error
    return failure


class Route(Generic[ChannelT]):
    """One way through the balancer.

    Attributes:
        sealer: has the key of the replica that it leads to.
        channel: seals what is called on it with that.
        failure: None: why a call failed is what it raises.
    """

    failure: EnsconceError | None = None

    def __init__(self, sealer: Sealer, channel: ChannelT) -> None:
        self.sealer, self.channel = sealer, channel

    @property
    def replica_id(self) -> str:
        """Which replica it leads to, or led to latest."""
        accepted = self.sealer.accepted
        return accepted.replica_id if accepted is not None else ""


class Routes(Generic[ChannelT]):
    """In the place of :class:`ensconce.client.pool.Pool`, where connections end before replicas. Safe between threads.

    Attributes:
        failures: none, see :class:`Route`.
    """

    def __init__(self, routes: Sequence[Route[ChannelT]], close: Callable[[], object]) -> None:
        """Begin.

        Args:
            routes: at least one.
            close: closes what all of them go through.
        """
        self.failures: dict[Address, EnsconceError] = {}
        self._routes, self._close = tuple(routes), close
        self._turns = itertools.count()
        self._latest = dict.fromkeys(self._routes, -1)
        self._calls: Counter[Route[ChannelT]] = Counter()
        self._known: dict[str, Accepted] = {}
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], object]] = []
        self._is_closed = False

    def lease(self, avoid: Collection[str] = ()) -> Lease[ChannelT]:
        """The route with the fewest calls under way, see :meth:`ensconce.client.pool.Pool.lease`.

        Args:
            avoid: ids of replicas to leave alone if there is another.

        Raises:
            InputError: ``client.closed``.
        """
        with self._lock:
            if self._is_closed:
                raise InputError("client.closed", "the client has been closed")
            route = min(
                self._routes, key=lambda each: (each.replica_id in avoid, self._calls[each], self._latest[each])
            )
            self._calls[route] += 1
            self._latest[route] = next(self._turns)
            self._learn()
        return Lease(route, partial(self._release, route))

    @property
    def replicas(self) -> dict[str, Accepted]:
        """The replicas that routes lead to, or led to latest, by id."""
        found = [route.sealer.accepted for route in self._routes]
        return {each.replica_id: each for each in found if each is not None}

    @property
    def known(self) -> dict[str, Accepted]:
        """The same, and those that calls have gone to; of these, the latest 1,024."""
        with self._lock:
            self._learn()
            return dict(self._known)

    @property
    def channels(self) -> list[ChannelT]:
        """One that closes what all go through."""
        return [route.channel for route in self._routes[:1]]

    def watch(self, changed: Callable[[], object]) -> None:
        """Have something called when the routes are closed."""
        self._watchers.append(changed)

    def close(self) -> None:
        """End every call. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._close()
        for each in self._watchers:
            each()

    def _learn(self) -> None:
        self._known |= self.replicas
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _release(self, route: Route[ChannelT]) -> None:
        with self._lock:
            self._calls[route] -= 1
