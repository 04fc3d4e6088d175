"""Which connections a pool has, which it wants, and which one takes the next call. No sockets, threads or clocks here.

Behind a gateway a client cannot choose a replica, only see which one it got. So it looks: from time to time it opens
one more connection, keeps it if the replica is new, and otherwise lets the oldest one to the same replica go.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from ensconce.addresses import Address

__all__ = ["EXPLORE_S", "LARGEST", "Roster", "Seat"]

EXPLORE_S = 5.0
"""Seconds between two looks for new replicas, while there are calls."""

LARGEST = 64
"""A pool has at most so many connections."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SHORTEST_LOOK_S = 0.02
_AT_ONCE = 8


class Seat(Protocol):
    """A connection, or what makes one anew when it ended."""

    @property
    def address(self) -> Address:
        """Where it goes to."""

    @property
    def replica_id(self) -> str:
        """Whose it is now, or was latest."""

    @property
    def is_lost(self) -> bool:
        """The other side has ended it, or it could not be made anew."""


SeatT = TypeVar("SeatT", bound=Seat)


class Roster(Generic[SeatT]):
    """Not safe to share between threads: its owner has a lock.

    Args:
        wanted: connections to have at least, one or more for each address.
        chance: a number from 0 to 1, 1 excluded.
    """

    def __init__(self, wanted: int, chance: Callable[[], float]) -> None:
        self._wanted = wanted
        self._chance = chance
        self._turns = itertools.count()
        self._latest: dict[object, int] = {}
        self._failures: Counter[Address] = Counter()
        self._not_before: dict[Address, float] = {}
        self._dialled: dict[Address, int] = {}
        self._under_way: Counter[Address] = Counter()
        self._explored = float("-inf")
        self._is_used = False
        self.addresses: tuple[Address, ...] = ()
        """Where the service is reached."""
        self.seats: list[SeatT] = []
        """The connections that calls may go to, oldest first."""
        self.calls: Counter[SeatT] = Counter()
        """Calls under way; also on seats that are no longer among :attr:`seats`."""

    # Calls.

    def choose(self, avoid: Collection[str] = ()) -> SeatT | None:
        """The seat for the next call: of the replica with the fewest calls under way its seat with the fewest.

        Among equals it is the one that had its turn longest ago.

        Args:
            avoid: replicas to leave alone if there is another.
        """
        self._is_used = True
        sound = [seat for seat in self.seats if not seat.is_lost] or self.seats
        seats = [seat for seat in sound if seat.replica_id not in avoid] or sound
        if not seats:
            return None
        load: Counter[str] = Counter()
        for seat in seats:
            load[seat.replica_id] += self.calls[seat]
        latest = self._latest
        chosen = min(
            seats,
            key=lambda seat: (
                load[seat.replica_id],
                latest.get(seat.replica_id, -1),
                self.calls[seat],
                latest.get(seat, -1),
            ),
        )
        latest[chosen] = latest[chosen.replica_id] = next(self._turns)
        self.calls[chosen] += 1
        return chosen

    def release(self, seat: SeatT) -> bool:
        """A call has ended; whether that was the last one of a seat that is to go."""
        self.calls[seat] -= 1
        if self.calls[seat] > 0:
            return False
        del self.calls[seat]
        return seat not in self.seats

    # Connections.

    def missing(self, now: float) -> Address | None:
        """Where a connection is to be opened now, because one is missing, lost, or because it is time to look around.

        Args:
            now: in seconds, by a clock that never goes back.
        """
        ready = [
            address
            for address in self.addresses
            if self._not_before.get(address, now) <= now and not self._under_way[address]
        ]
        under_way = self._under_way.total()
        if not ready or under_way >= _AT_ONCE:
            return None
        sound = Counter(seat.address for seat in self.seats if not seat.is_lost)
        if sum(sound.values()) + under_way < self._wanted or any(not sound[address] for address in ready):
            return min(ready, key=lambda address: (sound[address], self._dialled.get(address, -1)))
        if self._is_used and now >= self._explored + EXPLORE_S:
            return min(ready, key=lambda address: self._dialled.get(address, -1))
        return None

    def next_look(self, now: float) -> float:
        """In how many seconds to ask :meth:`missing` again, if nothing happens before."""
        waits = [at - now for at in self._not_before.values() if at > now]
        if self._is_used:
            waits.append(self._explored + EXPLORE_S - now)
        return max(_SHORTEST_LOOK_S, min([*waits, EXPLORE_S]))

    def reach(self, addresses: tuple[Address, ...]) -> None:
        """The service is reached there now; what is known of other addresses is forgotten, but for their seats."""
        self.addresses = addresses
        for gone in self._dialled.keys() - set(addresses):
            for known in (self._dialled, self._failures, self._not_before):
                known.pop(gone, None)

    def dialled(self, address: Address, now: float) -> None:
        """A connection is being opened, until it :meth:`failed` or :meth:`opened`; that also is a look around."""
        self._under_way[address] += 1
        self._dialled[address] = next(self._turns)
        # A tenth sooner or later, so that clients that began together do not come together for ever.
        self._explored = now + EXPLORE_S * (self._chance() - 0.5) / 5
        self._is_used = False

    def failed(self, address: Address, now: float) -> None:
        """It could not be opened: leave that address alone for a while, the longer the more often."""
        self._under_way[address] -= 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures[address], 10))
        self._failures[address] += 1
        self._not_before[address] = now + pause * (0.5 + self._chance() / 2)

    def opened(self, seat: SeatT) -> Sequence[SeatT]:
        """It is open and proved.

        Returns:
            Seats that it replaces, and that take no further calls.
        """
        self._under_way[seat.address] -= 1
        self._failures.pop(seat.address, None)
        self._not_before.pop(seat.address, None)
        self.seats.append(seat)
        return (*self.weed(), *self._remove(self._surplus(seat)))

    def weed(self) -> Sequence[SeatT]:
        """Lost seats, which take no further calls once there is another."""
        sound = any(not seat.is_lost for seat in self.seats)
        return self._remove([seat for seat in self.seats if seat.is_lost]) if sound else ()

    def _surplus(self, newest: SeatT) -> Sequence[SeatT]:
        if len(self.seats) <= max(self._wanted, len(self.addresses)):
            return ()
        crowds = Counter(seat.replica_id for seat in self.seats)
        # Room for a replica that is new: one goes of those that most connections lead to.
        crowd = newest.replica_id if crowds[newest.replica_id] > 1 else max(crowds, key=lambda name: crowds[name])
        if crowds[crowd] > 1 or len(self.seats) > LARGEST:
            return [next(seat for seat in self.seats if seat.replica_id == crowd)]
        return ()

    def close(self) -> Sequence[SeatT]:
        """No seats any more; those that there were."""
        return self._remove(list(self.seats))

    def _remove(self, gone: Sequence[SeatT]) -> Sequence[SeatT]:
        for seat in gone:
            self.seats.remove(seat)
            self._latest.pop(seat, None)
        here = {seat.replica_id for seat in self.seats}
        for key in [key for key in self._latest if isinstance(key, str) and key not in here]:
            del self._latest[key]
        return gone
