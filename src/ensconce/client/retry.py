"""Which calls are tried again, when, and how often in all."""

from __future__ import annotations

import threading
from typing import Final

import grpc

from ensconce.errors import EnsconceError, UnreachableError

__all__ = ["ATTEMPTS", "Budget", "may_retry", "pause"]

ATTEMPTS: Final = 5
"""A call is made so often at most."""

_FIRST_S: Final = 0.02
_LONGEST_S: Final = 1.0


def may_retry(code: grpc.StatusCode, reason: EnsconceError | None, *, others: bool) -> bool:
    """Whether a call that failed may be made again: UNAVAILABLE alone, which GOAWAY and lost connections end in, too.

    A prediction changes nothing in a server. One that was refused, or not answered in time, would be again.

    Args:
        code: how the call ended.
        reason: why there is no connection, where that is so. A replica that was refused is not asked again.
        others: whether there is an accepted replica.
    """
    if code is not grpc.StatusCode.UNAVAILABLE:
        return False
    return others or reason is None or isinstance(reason, UnreachableError)


def pause(attempt: int, chance: float) -> float:
    """Seconds before the next attempt: random, up to a limit that doubles.

    Args:
        attempt: how many there were, at least 1.
        chance: a number from 0 to 1.
    """
    return min(_LONGEST_S, _FIRST_S * 2.0 ** (attempt - 1)) * chance


class Budget:
    """How many calls may be made beyond those that were asked for: a tenth of them, and a few to begin with.

    When everything fails, retries only add to what there is too much of. Safe to share between threads.

    Args:
        share: of calls, that may be made again.
        most: that may be made again at once.
    """

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self._share, self._most = share, most
        self._left = most
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call was asked for."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def take(self) -> bool:
        """Make one more call, if the budget lasts."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
