"""What time it is, and how a moment is written."""

from __future__ import annotations

import time

from ensconce.times import unix_now, utc_text


def test_utc_to_the_second() -> None:
    assert utc_text(0) == "1970-01-01T00:00:00Z"
    assert utc_text(1_769_860_800) == "2026-01-31T12:00:00Z"
    assert utc_text(1_769_860_800.999) == "2026-01-31T12:00:00Z"


def test_now_is_this_machine_s_in_whole_seconds() -> None:
    before, now, after = int(time.time()), unix_now(), time.time()
    assert before <= now <= after
