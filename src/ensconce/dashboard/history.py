"""The last readings of every source, and what they say between one and the next: rates, and shares of distributions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ensconce.dashboard.exposition import Reading, Where

__all__ = ["KEPT", "History", "Point", "gauge", "quantiles", "rates"]

KEPT: Final = 240
"""Rounds that are kept."""


@dataclass(frozen=True)
class Point:
    """One round.

    Attributes:
        at: when, seconds of a monotonic clock.
        readings: by source; sources that did not answer are absent.
    """

    at: float
    readings: Mapping[str, Reading]


class History:
    """What is kept of the last rounds: only the metrics that plots are drawn of.

    Args:
        names: of metrics; all others are forgotten at once, so that no server decides how much is kept.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._points: deque[Point] = deque(maxlen=KEPT)

    def add(self, at: float, readings: Mapping[str, Reading]) -> None:
        """Keep a round."""
        kept = {
            source: Reading({name: samples for name, samples in reading.samples.items() if name in self._names})
            for source, reading in readings.items()
        }
        self._points.append(Point(at, kept))

    @property
    def points(self) -> tuple[Point, ...]:
        """From the oldest on."""
        return tuple(self._points)


Series = Sequence[tuple[float, float | None]]
"""Values at times; None where there is none."""


def rates(points: Sequence[Point], name: str, where: Where = lambda _: True) -> list[tuple[float, float | None]]:
    """How fast a counter grew, over all sources, per second.

    A source that restarted counts from zero: its growth is what it shows. One that is new, or was away, counts from
    its second reading on.
    """
    found: list[tuple[float, float | None]] = []
    for before, after in pairwise(points):
        grown = [now if now < then else now - then for then, now in _pairs(before, after, name, where)]
        seconds = after.at - before.at
        found.append((after.at, sum(grown) / seconds if grown and seconds > 0 else None))
    return found


def gauge(points: Sequence[Point], name: str) -> list[tuple[float, float | None]]:
    """What all sources show together."""
    shown = [(point.at, [reading.total(name) for reading in point.readings.values()]) for point in points]
    return [
        (at, sum(each for each in of if each is not None) if any(each is not None for each in of) else None)
        for at, of in shown
    ]


def quantiles(
    points: Sequence[Point], name: str, share: float, where: Where = lambda _: True
) -> list[tuple[float, float | None]]:
    """The value that ``share`` of a histogram's new observations did not exceed, between one round and the next.

    Between two limits of buckets it is interpolated; beyond the last it is the last.

    Args:
        points: rounds.
        name: of the histogram, without ``_bucket``.
        share: 0 to 1.
        where: which samples count.
    """
    found: list[tuple[float, float | None]] = []
    for before, after in pairwise(points):
        found.append((after.at, _quantile(_grown_buckets(before, after, f"{name}_bucket", where), share)))
    return found


def _pairs(before: Point, after: Point, name: str, where: Where) -> list[tuple[float, float]]:
    pairs = []
    for source, reading in after.readings.items():
        then = before.readings.get(source)
        now = reading.total(name, where)
        if then is not None and now is not None:
            pairs.append((then.total(name, where) or 0.0, now))
    return pairs


def _grown_buckets(before: Point, after: Point, name: str, where: Where) -> dict[float, float]:
    grown: dict[float, float] = {}
    for source, reading in after.readings.items():
        then = before.readings.get(source)
        if then is None:
            continue
        earlier, now = then.by(name, "le", where), reading.by(name, "le", where)
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
