"""The account of bytes that arriving and waiting requests hold, for each connection and for all of them."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Holder", "Memory", "Waiter"]


class Holder(Protocol):
    """A connection, as the account sees it."""

    held: int


class Waiter(Protocol):
    """A stream that waits for its reservation."""

    @property
    def connection(self) -> Holder:
        """Whose it is."""

    def granted(self, amount: int) -> None:
        """The bytes are its own now."""


class Memory:
    """Bytes, taken at once or reserved in turn.

    Who waits holds nothing of what he waits for, and everybody else gives back without waiting: there is no deadlock.
    """

    def __init__(self, *, server_bytes: int, connection_bytes: int) -> None:
        """Begin with everything free."""
        self._free, self._each = server_bytes, connection_bytes
        self._waiting: deque[tuple[Waiter, int]] = deque()

    @property
    def free(self) -> int:
        """Bytes that nobody holds; below zero when answers hold more than was left."""
        return self._free

    def take(self, holder: Holder, amount: int) -> bool:
        """Take bytes now; whether there were that many."""
        if amount > self._free or holder.held + amount > self._each:
            return False
        self._free -= amount
        holder.held += amount
        return True

    def hold(self, holder: Holder, amount: int) -> None:
        """Take bytes that are there already, answers above all, whether there is room or not."""
        self._free -= amount
        holder.held += amount

    def reserve(self, waiter: Waiter, amount: int) -> None:
        """Take bytes now or as soon as there are that many, and call ``granted``.

        Those who came earlier go first, but for those who wait for their own connection.
        """
        if not self._waiting and self.take(waiter.connection, amount):
            waiter.granted(amount)
        else:
            self._waiting.append((waiter, amount))

    def forget(self, waiter: Waiter) -> None:
        """The waiter waits no longer."""
        if self._waiting:
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not waiter)
            self._serve()

    def give(self, holder: Holder, amount: int) -> None:
        """Give bytes back."""
        self._free += amount
        holder.held -= amount
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        left: deque[tuple[Waiter, int]] = deque()
        while self._waiting:
            waiter, amount = self._waiting.popleft()
            if amount > self._free:
                left.append((waiter, amount))
                break
            if self.take(waiter.connection, amount):
                waiter.granted(amount)
            else:
                left.append((waiter, amount))
        left.extend(self._waiting)
        self._waiting = left
