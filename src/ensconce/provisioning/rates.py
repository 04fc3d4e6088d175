"""Token buckets by name, in a bounded table: how often one address, or one identity, may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["TokenBuckets"]


class TokenBuckets:
    """A token bucket for each key, full when the key is new. For one thread.

    The table is bounded: the key that asked longest ago is forgotten first, and is new when it asks again. Whoever has
    enough addresses to be forgotten that way had a full bucket for each of them anyway.

    Args:
        rate: tokens per second that a bucket gets back.
        burst: tokens that it holds.
        clock: seconds, monotonic.
        size: keys that are remembered.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic, size: int = 8192
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._size = size
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> bool:
        """Take a token of this key; False when there is none."""
        now = self._clock()
        left = self._left(key, now)
        self._buckets.pop(key, None)
        taken = left >= 1
        self._buckets[key] = (left - 1 if taken else left, now)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return taken

    def spent(self, key: str) -> bool:
        """Whether there is no token of this key now. Takes none, and remembers nothing of whoever looks."""
        return self._left(key, self._clock()) < 1

    def _left(self, key: str, now: float) -> float:
        left, at = self._buckets.get(key, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)
