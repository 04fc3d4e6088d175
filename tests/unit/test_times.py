"""What time it is, and how a moment is written."""

from __future__ import annotations

import time

import pytest

from ensconce.times import unix_now, unix_of, utc_text


def test_utc_to_the_second() -> None:
    assert utc_text(0) == "1970-01-01T00:00:00Z"
    assert utc_text(1_769_860_800) == "2026-01-31T12:00:00Z"
    assert utc_text(1_769_860_800.999) == "2026-01-31T12:00:00Z"


def test_a_moment_is_read_as_it_is_written_and_in_no_other_form() -> None:
    assert [unix_of(utc_text(each)) for each in (0, 1_769_860_800)] == [0, 1_769_860_800]
    for text in ("", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00:00+00:00", "2026-02-31T12:00:00Z"):
        with pytest.raises(ValueError, match=r"moment|day"):
            unix_of(text)


def test_now_is_this_machine_s_in_whole_seconds() -> None:
    before, now, after = int(time.time()), unix_now(), time.time()
    assert before <= now <= after
