"""What happened when, in bounded memory: periods that become twice as long when there are too many of them."""

from __future__ import annotations

from typing import Final

__all__ = ["Timeline"]

_MOST: Final = 240


class Timeline:
    """Answers and failures over time.

    Attributes:
        period: seconds of each entry.
        answered: how many answers came in each.
        failed: how many failures.
    """

    def __init__(self, period: float = 0.125) -> None:
        self.period = period
        self.answered: list[int] = []
        self.failed: list[int] = []

    def add(self, at: float, *, failed: bool) -> None:
        """Something ended, so many seconds after the beginning."""
        while (index := int(max(at, 0.0) / self.period)) >= _MOST:
            self.period *= 2
            self.answered, self.failed = _halved(self.answered), _halved(self.failed)
        missing = index + 1 - len(self.answered)
        if missing > 0:
            self.answered += [0] * missing
            self.failed += [0] * missing
        (self.failed if failed else self.answered)[index] += 1


def _halved(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
