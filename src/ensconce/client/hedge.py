"""After how long a call is also made elsewhere."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Literal

from ensconce.errors import InputError

__all__ = ["Hedge", "Latencies", "check_hedge"]

Hedge = float | Literal["p95"]
"""Seconds, or the time that 95 in 100 of the latest calls took."""

_REMEMBERED: Final = 1000
_FEWEST: Final = 20
_RENEWED: Final = 16


def check_hedge(hedge: Hedge | None) -> None:
    """Refuse what is no delay.

    Raises:
        InputError: ``client.hedge``.
    """
    if hedge is not None and hedge != "p95" and not (isinstance(hedge, int | float) and hedge > 0):
        raise InputError("client.hedge", "this is no delay", found=repr(hedge)[:100], rule='seconds, or "p95"')


class Latencies:
    """How long the latest calls of one kind took. Safe to share between threads."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()
        self._p95: float | None = None
        self._since = 0

    def add(self, seconds: float) -> None:
        """A call was answered."""
        with self._lock:
            self._latest.append(seconds)
            self._since += 1

    def p95(self) -> float | None:
        """What 95 in 100 stayed within (nearest rank); ``None`` as long as there are too few to say."""
        with self._lock:
            if self._since >= _RENEWED and len(self._latest) >= _FEWEST:
                self._p95 = sorted(self._latest)[-(-len(self._latest) * 95 // 100) - 1]
                self._since = 0
            return self._p95
