"""The account of bytes that the bodies of all connections hold.

Unlike HTTP/2's, nobody can be asked to wait with a body that is on its way, and threads that decompress take as well.
"""

from __future__ import annotations

import threading

__all__ = ["Memory"]


class Memory:
    """Bytes, taken as they arrive; for any thread."""

    def __init__(self, size: int) -> None:
        """Begin with everything free."""
        self._size, self._used = size, 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that bodies hold."""
        return self._used

    def fits(self, amount: int) -> bool:
        """Whether there are that many at the moment."""
        return self._used + amount <= self._size

    def take(self, amount: int) -> bool:
        """Take bytes; whether there were that many."""
        with self._lock:
            if not self.fits(amount):
                return False
            self._used += amount
            return True

    def give(self, amount: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used -= amount
