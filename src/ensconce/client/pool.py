"""Connections to a service's replicas, each proved, which share the calls; kept up in the background."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from ensconce.addresses import Address
from ensconce.client.attested import Alpn, AttestedSocket
from ensconce.client.leaf import Accepted
from ensconce.client.roster import Roster
from ensconce.client.seats import Lease, Seat
from ensconce.client.service import Service
from ensconce.client.tunnel import Tunnel, as_failure
from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["CONNECTIONS", "Pool"]

ChannelT = TypeVar("ChannelT")

CONNECTIONS = 2
"""Connections of a pool at least, unless it is told otherwise."""

_MOST = 64
_MOST_KNOWN = 1024
_AT_ONCE = 8
_JOIN_S = 2.0
_ELSEWHERE = 2
"""So many other addresses are tried for a seat whose own fails."""


class Pool(Generic[ChannelT]):
    """A pool of seats. Safe to share between threads.

    Args:
        service: what is connected to, and judges.
        alpn: the protocol to be spoken.
        make: makes what speaks through a tunnel; called where it is first used.
        dispose: ends it; called in any thread.
        connections: to be had at least; there is one for each address at least, too.
        clock: in seconds; never goes back.
        chance: a number from 0 to 1, 1 excluded.

    Raises:
        InputError: ``client.connections``.
    """

    def __init__(
        self,
        service: Service,
        alpn: Alpn,
        make: Callable[[Tunnel], ChannelT],
        dispose: Callable[[ChannelT], object],
        *,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not 1 <= connections <= _MOST:
            raise InputError(
                "client.connections",
                "a client cannot have so many connections",
                found=str(connections),
                rule=f"1 to {_MOST}",
            )
        self._service, self._alpn, self._make, self._dispose = service, alpn, make, dispose
        self._connections, self._clock = connections, clock
        self._roster: Roster[Seat[ChannelT]] = Roster(connections, chance)
        self._over: list[Seat[ChannelT]] = []
        self._failures: dict[Address, EnsconceError] = {}
        self._opened: Counter[str] = Counter()
        self._known: dict[str, Accepted] = {}
        self._changed = threading.Condition()
        self._watchers: list[Callable[[], object]] = []
        self._is_closed = False
        self._is_woken = False
        self._keeper = threading.Thread(target=self._keep, name="pool", daemon=True)

    def open(self) -> Self:
        """Open the first connections; when this returns, at least one replica has been accepted.

        Raises:
            EvidenceError, RefusedError: not one was accepted, and this is why one was refused.
            UnreachableError: not one was reached.
        """
        addresses = self._service.addresses()
        self._roster.reach(addresses)
        wanted = max(self._connections, len(addresses))
        with ThreadPoolExecutor(min(wanted, _AT_ONCE), thread_name_prefix="pool opens") as threads:
            for number in range(wanted):
                address = addresses[number % len(addresses)]
                with self._changed:
                    self._roster.dialled(address, self._clock())
                threads.submit(self._open, address)
        if not self._roster.seats:
            self.close()
            raise _reason([*self._failures.values()])
        self._keeper.start()
        return self

    def lease(self, avoid: Collection[str] = ()) -> Lease[ChannelT]:
        """A seat for one call, at the replica with the fewest calls under way.

        Args:
            avoid: ids of replicas to leave alone if there is another.

        Raises:
            InputError: ``client.closed``.
        """
        with self._changed:
            seat = None if self._is_closed else self._roster.choose(avoid)
        if seat is None:
            raise InputError("client.closed", "the client has been closed")
        lease = Lease(seat, functools.partial(self.release, seat), lambda: seat.tunnel.ends)
        if lease.replica_id not in self._known:
            self._learn(seat)
        return lease

    def release(self, seat: Seat[ChannelT]) -> None:
        """A call on a seat has ended; called by its lease, which may be in an event loop: nothing here waits."""
        with self._changed:
            if self._roster.release(seat) and not self._is_closed:
                self._over.append(seat)
                self._is_woken = True
                self._changed.notify_all()

    @property
    def replicas(self) -> dict[str, Accepted]:
        """The replicas that calls may go to now, by id."""
        found = [seat.tunnel.accepted for seat in self.seats]
        return {each.replica_id: each for each in found if each is not None}

    @property
    def known(self) -> dict[str, Accepted]:
        """The same, and those that calls have gone to; of these, the latest 1,024."""
        now = self.replicas
        with self._changed:
            return self._known | now

    @property
    def seats(self) -> list[Seat[ChannelT]]:
        """The seats that calls may go to now."""
        with self._changed:
            return [seat for seat in self._roster.seats if not seat.is_lost]

    @property
    def channels(self) -> list[ChannelT]:
        """What speaks now, as far as it was used."""
        with self._changed:
            return [seat.channel for seat in {*self._roster.seats, *self._roster.calls} if "channel" in vars(seat)]

    @property
    def opened(self) -> dict[str, int]:
        """How many connections were opened to each replica so far, by id; but for those that seats opened again."""
        with self._changed:
            return dict(self._opened)

    @property
    def failures(self) -> dict[Address, EnsconceError]:
        """Addresses where the latest attempt to connect failed, and why: refused, or not reached."""
        with self._changed:
            return dict(self._failures)

    def watch(self, changed: Callable[[], object]) -> None:
        """Have something called, in any thread, whenever :attr:`replicas` may have changed."""
        self._watchers.append(changed)

    def close(self) -> None:
        """End every connection, with the calls on them. Idempotent."""
        with self._changed:
            self._is_closed = True
            seats = self._roster.close()
            gone = {*seats, *self._roster.calls, *self._over}
            self._changed.notify_all()
        if self._keeper.is_alive() and self._keeper is not threading.current_thread():
            self._keeper.join(_JOIN_S)
        for seat in gone:
            self._end(seat)
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self) -> None:
        """Replace what was lost, and look for what is new, until the pool is closed."""
        while True:
            with self._changed:
                now = self._clock()
                wait = 0.0 if self._is_woken else self._roster.next_look(now)
                if wait and not self._is_closed:
                    self._changed.wait(wait)
                self._is_woken = False
                if self._is_closed:
                    return
                gone = [each for each in self._roster.weed() if not self._roster.calls[each]] + self._over
                self._over = []
                while (address := self._roster.missing(self._clock())) is not None:
                    self._roster.dialled(address, self._clock())
                    # Threads of their own: an address that swallows what is sent there holds up nobody else.
                    threading.Thread(target=self._renew, args=(address,), name="pool opens", daemon=True).start()
            for each in gone:
                self._end(each)

    def _renew(self, address: Address) -> None:
        with suppress(UnreachableError):  # With the addresses that it had, then.
            addresses = self._service.addresses()
            with self._changed:
                self._roster.reach(addresses)
                self._failures = {each: why for each, why in self._failures.items() if each in addresses}
        self._open(address)
        with self._changed:
            # There may be more to do at once.
            self._is_woken = True
            self._changed.notify_all()

    def _open(self, address: Address) -> None:
        tunnel = Tunnel(
            lambda: self._service.attest(address, self._alpn), functools.partial(self._again, address), self._wake
        )
        try:
            tunnel.start()
        except Exception as error:
            with self._changed:
                self._failures[address] = as_failure(error)
                self._roster.failed(address, self._clock())
            return
        seat = Seat(tunnel, self._make)
        with self._changed:
            gone = [seat]
            if not self._is_closed:
                self._failures.pop(address, None)
                self._opened[seat.replica_id] += 1
                replaced = self._roster.opened(seat)
                gone = [each for each in replaced if not self._roster.calls[each]]
        for each in gone:
            self._end(each)
        self._tell()

    def _again(self, address: Address) -> AttestedSocket:
        """Another connection for a seat, or why there is none: to its address, else to one where calls find a replica.

        What speaks through the seat has calls that no replica has looked at; they need not fail with the address.
        """
        with self._changed:
            sound = [seat.address for seat in self._roster.seats if not seat.is_lost and seat.address != address]
            others = list(dict.fromkeys(sound))[:_ELSEWHERE]
            # It is tried again in the background.
            addresses = others if others and address in self._failures else [address, *others]
        failures: list[EnsconceError] = []
        for each in addresses:
            try:
                return self._service.attest(each, self._alpn)
            except Exception as error:
                failures.append(as_failure(error))
                with self._changed:
                    self._failures[each] = failures[-1]
        raise _reason(failures)

    def _learn(self, seat: Seat[ChannelT]) -> None:
        accepted = seat.tunnel.accepted
        if accepted is not None:
            with self._changed:
                self._known[accepted.replica_id] = accepted
                while len(self._known) > _MOST_KNOWN:
                    del self._known[next(iter(self._known))]

    def _end(self, seat: Seat[ChannelT]) -> None:
        if "channel" in vars(seat):
            self._dispose(seat.channel)
        seat.tunnel.close()

    def _wake(self) -> None:
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        for each in self._watchers:
            each()


def _reason(failures: Sequence[EnsconceError]) -> EnsconceError:
    """A refusal if there was one, otherwise why nobody was reached."""
    return next((each for each in failures if not isinstance(each, UnreachableError)), failures[0])
