"""How a moment is written."""

from __future__ import annotations

from ensconce.times import utc_text


def test_utc_to_the_second() -> None:
    assert utc_text(0) == "1970-01-01T00:00:00Z"
    assert utc_text(1_769_860_800) == "2026-01-31T12:00:00Z"
    assert utc_text(1_769_860_800.999) == "2026-01-31T12:00:00Z"
