"""What two rounds of readings say together: rates, and shares of distributions; only these values are kept."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ensconce.dashboard.exposition import Reading, Where

__all__ = ["KEPT", "History", "Measure", "Readings", "Series", "gauge", "quantile", "rate"]

KEPT: Final = 240
"""Rounds of which values are kept."""

Readings = Mapping[str, Reading]
"""Of one round, by source; sources that did not answer are absent."""

Measure = Callable[[Readings, Readings, float], float | None]
"""A value of one round's readings, those of the next, and the seconds between them; None where there is none."""

Series = Sequence[tuple[float, float | None]]
"""Values at times, seconds of a monotonic clock."""


class History:
    """The last values of measures. Of readings only the last round's are kept: no server decides how much is.

    Args:
        measures: by name.
    """

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self._measures = measures
        self._kept = {name: deque[tuple[float, float | None]](maxlen=KEPT) for name in measures}
        self._last: tuple[float, Readings] | None = None

    def add(self, at: float, readings: Readings) -> None:
        """Take a round; the first has nothing to be compared with."""
        if self._last is not None and at > self._last[0]:
            before, earlier = self._last
            for name, measure in self._measures.items():
                self._kept[name].append((at, measure(earlier, readings, at - before)))
        self._last = at, readings

    @property
    def series(self) -> dict[str, Series]:
        """By name, from the oldest on."""
        return {name: tuple(values) for name, values in self._kept.items()}


def rate(name: str, where: Where = lambda _: True, *, beside: str = "") -> Measure:
    """How fast a counter grew, over all sources, per second.

    A source that restarted counts from zero: its growth is what it shows. One that is new, or was away, counts from
    its second reading on.

    Args:
        name: of the counter.
        where: which samples count.
        beside: a metric; a source that has it has the counter as well, at zero while it does not show it.
    """

    def measure(before: Readings, after: Readings, seconds: float) -> float | None:
        grown: list[float] = []
        for source, reading in after.items():
            now = reading.total(name, where)
            if now is None and beside in reading.samples:
                now = 0.0
            if source in before and now is not None:
                then = before[source].total(name, where) or 0.0
                grown.append(now if now < then else now - then)
        return sum(grown) / seconds if grown else None

    return measure


def gauge(name: str) -> Measure:
    """What all sources show together."""

    def measure(_before: Readings, after: Readings, _seconds: float) -> float | None:
        shown = [value for reading in after.values() if (value := reading.total(name)) is not None]
        return sum(shown) if shown else None

    return measure


def quantile(name: str, share: float, where: Where = lambda _: True) -> Measure:
    """The value that ``share`` of a histogram's new observations did not exceed.

    Between two limits of buckets it is interpolated; beyond the last it is the last.

    Args:
        name: of the histogram, without ``_bucket``.
        share: 0 to 1.
        where: which samples count.
    """
    return lambda before, after, _: _quantile(_grown(before, after, f"{name}_bucket", where), share)


def _grown(before: Readings, after: Readings, name: str, where: Where) -> dict[float, float]:
    grown: dict[float, float] = {}
    for source, reading in after.items():
        if source not in before:
            continue
        earlier, now = before[source].by(name, "le", where), reading.by(name, "le", where)
        restarted = any(now.get(limit, 0.0) < count for limit, count in earlier.items())
        for limit, count in now.items():
            try:
                edge = math.inf if limit == "+Inf" else float(limit)
            except ValueError:
                continue
            if not math.isnan(edge):
                grown[edge] = grown.get(edge, 0.0) + count - (0.0 if restarted else earlier.get(limit, 0.0))
    return grown


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    edges = sorted(buckets)
    if not edges or buckets[edges[-1]] <= 0:
        return None
    wanted = share * buckets[edges[-1]]
    below, lower = 0.0, 0.0
    for edge in edges:
        if buckets[edge] >= wanted:
            if math.isinf(edge):
                return lower
            inside = buckets[edge] - below
            return lower + (edge - lower) * ((wanted - below) / inside if inside > 0 else 1.0)
        below, lower = buckets[edge], edge
    return lower
