"""What time it is, and how a moment is written, wherever people or other programs read it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

__all__ = ["since_boot", "unix_now", "unix_of", "utc_text"]

_TEXT = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")


def unix_now() -> int:
    """Seconds since 1970 by this machine's clock."""
    return int(time.time())


def since_boot() -> float:
    """Seconds since this machine began, the time that it was asleep included (CLOCK_BOOTTIME, clock_gettime(2)).

    For how long something holds: ``time.monotonic()`` stands still while a machine sleeps, and what was accepted for an
    hour would hold for the night.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def utc_text(unix_seconds: float) -> str:
    """RFC 3339 in UTC, to the second, such as 2026-01-31T12:00:00Z; what is beyond the second is cut off."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_of(text: str) -> int:
    """Seconds since 1970 of a moment as :func:`utc_text` writes it; no other form of RFC 3339 is read.

    Raises:
        ValueError: it is not one.
    """
    if _TEXT.fullmatch(text) is None:
        raise ValueError("no moment such as 2026-01-31T12:00:00Z")
    return int(datetime.fromisoformat(text).timestamp())
