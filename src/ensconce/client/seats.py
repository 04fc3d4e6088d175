"""Where a call can go, and the use of it for one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from ensconce.addresses import Address
from ensconce.client.leaf import Accepted
from ensconce.client.tunnel import Tunnel
from ensconce.errors import EnsconceError

__all__ = ["Lease", "Place", "Places", "Seat"]

ChannelT = TypeVar("ChannelT")
ChannelT_co = TypeVar("ChannelT_co", covariant=True)


class Seat(Generic[ChannelT]):
    """A tunnel, and what speaks through it.

    Attributes:
        tunnel: started.
    """

    def __init__(self, tunnel: Tunnel, make: Callable[[Tunnel], ChannelT]) -> None:
        self.tunnel = tunnel
        self._make = make

    @functools.cached_property
    def channel(self) -> ChannelT:
        """What speaks; made where it is first used, because some things belong to an event loop."""
        return self._make(self.tunnel)

    @property
    def address(self) -> Address:
        """Where it leads to, or led to latest: its own address, or another one of the service where that failed."""
        address = self.tunnel.address
        assert address is not None, "the tunnel has not been started"
        return address

    @property
    def replica_id(self) -> str:
        """Which replica it leads to, or led to latest."""
        accepted = self.tunnel.accepted
        return accepted.replica_id if accepted is not None else ""

    @property
    def failure(self) -> EnsconceError | None:
        """Why there is no connection, where that is so."""
        return self.tunnel.failure

    @property
    def is_lost(self) -> bool:
        """See :attr:`ensconce.client.tunnel.Tunnel.is_lost`."""
        return self.tunnel.is_lost


class Place(Protocol[ChannelT_co]):
    """Where a call can go: a seat of a pool, or a route through a balancer."""

    @property
    def channel(self) -> ChannelT_co:
        """What speaks."""

    @property
    def replica_id(self) -> str:
        """Which replica it leads to, or led to latest."""

    @property
    def failure(self) -> EnsconceError | None:
        """Why it cannot be had, where that is so."""


class Lease(Generic[ChannelT]):
    """The use of a seat for one call.

    Attributes:
        seat: where the call goes.
        replica_id: the replica that the seat led to when the call began.
    """

    def __init__(
        self, seat: Place[ChannelT], release: Callable[[], object], ends: Callable[[], int] = lambda: 0
    ) -> None:
        self._release, self._ends, self._ended = release, ends, ends()
        self._is_over = False
        self.seat = seat
        self.replica_id = seat.replica_id

    @property
    def failure(self) -> EnsconceError | None:
        """Why the seat has no connection, where that is so."""
        return self.seat.failure

    @property
    def is_cut(self) -> bool:
        """A connection of the seat has ended since the call began, or none could be had."""
        return self._ends() != self._ended or self.failure is not None

    def release(self) -> None:
        """The call has ended. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Places(Protocol[ChannelT_co]):
    """What shares calls out: a pool, or what stands in its place. See :class:`ensconce.client.pool.Pool`."""

    @property
    def failures(self) -> dict[Address, EnsconceError]:
        """See there."""

    @property
    def replicas(self) -> dict[str, Accepted]:
        """See there."""

    @property
    def known(self) -> dict[str, Accepted]:
        """See there."""

    @property
    def channels(self) -> Sequence[ChannelT_co]:
        """See there."""

    def lease(self, avoid: Collection[str] = ()) -> Lease[Any]:
        """See there."""

    def watch(self, changed: Callable[[], object]) -> None:
        """See there."""

    def close(self) -> None:
        """See there."""
