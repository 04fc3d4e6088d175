"""Numbers: what a run of requests says, what rounds of runs say, and how two contestants compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Ratio", "Request", "Run", "percentile", "ratio", "summarize"]

# Of many requests the first and the last are left out: connections are opened, and some have ended before others.
_MANY = 40
_FIRST = 0.10
_LAST = 0.95


@dataclass(frozen=True)
class Request:
    """One request: when it began (seconds, of any epoch), and how long it took."""

    start: float
    took: float

    @property
    def end(self) -> float:
        """When its answer was there."""
        return self.start + self.took


@dataclass(frozen=True)
class Run:
    """What one run of one contestant came to; rates in requests a second, latencies in seconds."""

    requests: int
    rate: float
    p50: float
    p99: float

    def to_json_object(self) -> dict[str, Any]:
        """For the file of results."""
        return dict(vars(self))


@dataclass(frozen=True, order=True)
class Cell:
    """One place of the table."""

    model: str
    batch: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.model}, batch {self.batch}, concurrency {self.concurrency}"


@dataclass(frozen=True)
class Ratio:
    """One contestant's number over another's: the median of the rounds' ratios, the least and the largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def summarize(requests: Sequence[Request], concurrency: int) -> Run:
    """What a run says, of requests in order of their end.

    Of at least 40 rounds of ``concurrency`` requests the first tenth and the last twentieth are left out. Of fewer,
    every request counts: the rate is theirs over the time from the first one's start to the last one's end.

    Raises:
        ValueError: there are none.
    """
    if not requests:
        raise ValueError("no requests")
    first, last = 0, len(requests)
    begin = min(request.start for request in requests)
    if len(requests) >= _MANY * concurrency:
        first, last = int(len(requests) * _FIRST), int(len(requests) * _LAST)
        begin = requests[first - 1].end
    counted = requests[first:last]
    took = sorted(request.took for request in counted)
    rate = len(counted) / (counted[-1].end - begin)
    return Run(len(counted), rate, percentile(took, 50), percentile(took, 99))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the ordered values that is no less than ``percent`` of them are (nearest rank)."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank) - 1, 0)]


def ratio(these: Sequence[float], those: Sequence[float]) -> Ratio:
    """Round by round, so that a slow minute of the machine divides out.

    Raises:
        ValueError: the rounds are not as many on both sides, or none.
    """
    each = [this / that for this, that in zip(these, those, strict=True)]
    if not each:
        raise ValueError("no rounds")
    return Ratio(statistics.median(each), min(each), max(each))
