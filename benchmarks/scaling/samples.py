"""Measured values as they are: to draw from, and to say what they are like."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Samples", "quantile"]


def quantile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that ``part`` of all are not above (nearest rank); ``ordered`` ascends and is not empty."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


@dataclass(frozen=True)
class Samples:
    """Values that were measured, in any unit; at least one.

    Drawing from them says nothing of values beyond the largest one that was seen.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Samples:
        """In ascending order."""
        if not values:
            raise ValueError("no samples")
        return cls(tuple(sorted(values)))

    def draw(self, chance: random.Random) -> float:
        """One of them, all equally likely."""
        return self.values[int(chance.random() * len(self.values))]

    def times(self, factor: float) -> Samples:
        """The same on a machine that takes ``factor`` times as long."""
        return Samples(tuple(value * factor for value in self.values))

    @property
    def mean(self) -> float:
        """Of all."""
        return math.fsum(self.values) / len(self.values)

    def at(self, part: float) -> float:
        """A quantile, such as 0.5 or 0.99."""
        return quantile(self.values, part)
