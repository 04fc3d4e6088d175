"""How much is sent, and when it is due."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ensconce.errors import InputError

__all__ = ["Arrivals", "Plan", "arrivals"]

Arrivals = Literal["poisson", "constant"]

_MOST_CALLERS: Final = 4096
_HIGHEST_RATE: Final = 1_000_000.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A closed loop, in which each caller sends its next request when the last one has ended; or an open one.

    Attributes:
        concurrency: callers; in an open loop, requests under way at most.
        rate: requests due in a second, which makes it an open loop.
        arrivals: in an open loop; ``poisson`` as from many callers who know nothing of each other, or evenly spaced.
        requests: after so many it ends.
        duration: after so many seconds nothing more is sent; with neither of the two it goes on until it is cancelled.
        warm_up: requests before the clock starts, not counted.
    """

    concurrency: int = 1
    rate: float | None = None
    arrivals: Arrivals = "poisson"
    requests: int | None = None
    duration: float | None = None
    warm_up: int = 0

    def __post_init__(self) -> None:
        _within("concurrency", self.concurrency, 1, _MOST_CALLERS)
        _within("warm-up", self.warm_up, 0, 10**9)
        for name, value, least, most in (
            ("rate", self.rate, 0.001, _HIGHEST_RATE),
            ("requests", self.requests, 1, 10**12),
            ("duration", self.duration, 0.001, 10**7),
        ):
            if value is not None:
                _within(name, value, least, most)


def arrivals(plan: Plan, chance: random.Random) -> Iterator[float]:
    """When the requests of an open loop are due, in seconds from its beginning; ends with the plan."""
    assert plan.rate is not None
    number, due = 0, 0.0
    while plan.requests is None or number < plan.requests:
        # Counted from the beginning: a sum of a million rounded steps would drift.
        due = due + chance.expovariate(plan.rate) if plan.arrivals == "poisson" else number / plan.rate
        if plan.duration is not None and due >= plan.duration:
            return
        yield due
        number += 1


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN is nowhere
        raise InputError(f"bench.{name}", f"the {name} cannot be this", found=str(value), rule=f"{least} to {most}")
