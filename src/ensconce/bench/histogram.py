"""Latencies in bounded memory: a log-linear histogram, as HdrHistogram (Tene) has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Self

import numpy as np

__all__ = ["PRECISION", "Histogram"]

PRECISION: Final = 10
"""Each power of two is divided into two to this power steps: no value is told more than 1/1024 too high."""

_STEPS: Final = 1 << PRECISION
# An hour: nothing waits longer. It bounds the counters: 2,048 and then 1,024 for each further power of two.
_LARGEST: Final = 3600 * 10**9


class Histogram:
    """Counts durations, in nanoseconds; beyond an hour they count as one.

    Attributes:
        count: how many.
        total: their sum.
        smallest: exact; 0 where there is none.
        largest: likewise.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = self.total = self.smallest = self.largest = 0

    def add(self, value: int, times: int = 1) -> None:
        """Count a duration, ``times`` times."""
        value = min(max(value, 0), _LARGEST)
        self._counts[_index(value)] += times
        self.smallest = min(self.smallest, value) if self.count else value
        self.largest = max(self.largest, value)
        self.count += times
        self.total += value * times

    def percentile(self, percent: float) -> int:
        """What so many percent of the durations stayed within: at least that, and at most 1/1024 more; 0 of none."""
        # As integers: 99.9 percent of 1,000 is 999, and no rounding of a product makes it 1,000.
        wanted = max(-(-self.count * round(percent * 10**6) // 10**8), 1)
        seen = 0
        for upper, count in self.buckets():
            seen += count
            if seen >= wanted:
                return upper
        return self.largest

    def buckets(self) -> Iterator[tuple[int, int]]:
        """The largest duration that counts where some were counted, never above :attr:`largest`; and how many."""
        for index in sorted(self._counts):
            yield min(_upper(index), self.largest), self._counts[index]

    def corrected(self, interval: int) -> Self:
        """With the requests that were held up, as HdrHistogram corrects for coordinated omission.

        A duration longer than ``interval`` kept its caller from sending: for each ``interval`` that would have passed
        meanwhile one more is added, the duration less that wait, down to ``interval``.
        """
        if interval <= 0:
            raise ValueError("the expected interval must be positive")
        made = type(self)()
        for value, times in self.buckets():
            made.add(value, times)
            if value > interval:
                missing = np.arange(value - interval, interval - 1, -interval, dtype=np.int64)
                for each, count in zip(*np.unique(_indices(missing), return_counts=True), strict=True):
                    made._counts[int(each)] += int(count) * times
                made.count += len(missing) * times
                made.total += int(missing.sum()) * times
                made.smallest = min(made.smallest, int(missing.min(initial=made.smallest)))
        if self.count:
            made.smallest = min(made.smallest, self.smallest)
        return made


def _index(value: int) -> int:
    shift = max(value.bit_length() - PRECISION - 1, 0)
    return shift * _STEPS + (value >> shift)


def _upper(index: int) -> int:
    shift = max(index // _STEPS - 1, 0)
    return ((index - shift * _STEPS + 1) << shift) - 1


def _indices(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """:func:`_index` of many."""
    # frexp is exact here: an hour in nanoseconds has 42 bits, a double holds 53.
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shifts = np.maximum(bits - PRECISION - 1, 0)
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = shifts * _STEPS + (values >> shifts)
    return found
