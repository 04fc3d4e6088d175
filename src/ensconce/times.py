"""What time it is, and how a moment is written, wherever people or other programs read it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["unix_now", "utc_text"]


def unix_now() -> int:
    """Seconds since 1970 by this machine's clock."""
    return int(time.time())


def utc_text(unix_seconds: float) -> str:
    """RFC 3339 in UTC, to the second, such as 2026-01-31T12:00:00Z; what is beyond the second is cut off."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
