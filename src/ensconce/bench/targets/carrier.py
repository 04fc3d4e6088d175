"""What takes a request to a server and brings its answer."""

from __future__ import annotations

from typing import Final, Protocol

from ensconce.bench.tally import AnswerError
from ensconce.bench.targets.dialect import Answer, Ask
from ensconce.errors import EnsconceError

__all__ = ["MAX_ANSWER", "Carrier", "failed_check"]

MAX_ANSWER: Final = 256 * 1024 * 1024
"""Longest answer that is taken, in bytes."""


class Carrier(Protocol):
    """Connections to a service, for one event loop."""

    async def ask(self, ask: Ask, timeout: float) -> Answer:
        """Send a request.

        Args:
            ask: encoded.
            timeout: for all of it, in seconds.

        Raises:
            AnswerError: it was not answered well, and this is what it is counted under.
        """

    async def close(self) -> None:
        """Close the connections."""


def failed_check(error: EnsconceError) -> AnswerError:
    """What a refused or unreachable replica is counted under; the error itself is the cause."""
    failure = AnswerError(f"check {error.check}", str(error))
    failure.__cause__ = error
    return failure
