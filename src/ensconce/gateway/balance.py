"""Which replica gets the next connection.

Fewest connections first, round robin among equals: a replica that has just joined has none, so it gets every new
connection until it has its share. (Round robin alone would give it only one in n.) A replica that could not be
connected to rests for a while, unless all do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from ensconce.addresses import Address

__all__ = ["REST_S", "Balancer"]

REST_S = 5.0
"""How long a replica rests after a failed connect, in seconds."""


class Balancer:
    """The replicas of one listener, with the number of connections that each has now.

    Args:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._targets: list[Address] = []
        self._connections: dict[Address, int] = {}
        self._rests_until: dict[Address, float] = {}
        self._turn = 0

    @property
    def connections(self) -> dict[Address, int]:
        """How many connections each replica has now; those that left the list stay here while they have any."""
        return {
            target: self._connections.get(target, 0) for target in {**dict.fromkeys(self._targets), **self._connections}
        }

    def replace(self, targets: Iterable[Address]) -> None:
        """From now on choose among ``targets``."""
        self._targets = list(dict.fromkeys(targets))
        self._rests_until = {target: at for target, at in self._rests_until.items() if target in self._targets}

    def order(self) -> list[Address]:
        """All targets, the one to try first at the front, resting ones last."""
        count = len(self._targets)
        if count == 0:
            return []
        now, turn = self._now(), self._turn
        self._turn = (turn + 1) % count

        def rank(item: tuple[int, Address]) -> tuple[bool, int, int]:
            index, target = item
            resting = self._rests_until.get(target, now) > now
            return resting, self._connections.get(target, 0), (index - turn) % count

        return [target for _, target in sorted(enumerate(self._targets), key=rank)]

    def failed(self, target: Address) -> None:
        """A connect to ``target`` failed: let it rest."""
        self._rests_until[target] = self._now() + REST_S

    @contextlib.contextmanager
    def holding(self, target: Address) -> Iterator[None]:
        """Count one connection to ``target`` while the block runs."""
        self._connections[target] = self._connections.get(target, 0) + 1
        try:
            yield
        finally:
            left = self._connections[target] - 1
            if left:
                self._connections[target] = left
            else:
                del self._connections[target]
