"""Bounds how fast strangers can make the owner's log grow: a token bucket for the refusals that are recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RefusalBudget"]


class RefusalBudget:
    """How many refusals of strangers are recorded: a burst, then a steady trickle, and a count of the rest.

    Whoever reaches the port can fail as often as it likes; the log must not grow as fast. Refusals of enclaves that the
    policy accepted do not pass through here.

    Args:
        burst: entries at once.
        per_second: entries in the long run.
        clock: seconds, monotonic.
    """

    def __init__(self, burst: int = 100, per_second: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._burst = burst
        self._rate = per_second
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._suppressed = 0

    def take(self) -> int | None:
        """Take an entry: how many were suppressed since the last, or None when this one is suppressed too."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                self._suppressed += 1
                return None
            self._left -= 1
            suppressed, self._suppressed = self._suppressed, 0
            return suppressed
