from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.dashboard.plot import Line, duration, number, plot


def shown(values: list[tuple[float, float | None]]) -> str:
    return str(plot("Requests", [Line("all", values)], lambda value: f"{value:g}/s", "nothing yet"))


def test_a_plot_says_in_words_what_it_shows() -> None:
    page = shown([(0, 1.0), (5, 4.0), (10, 2.0)])
    assert 'role="img"' in page
    assert 'aria-label="Requests: all: 2/s now, 4/s at most"' in page
    assert 'points="0.0,89.5 300.0,1.0 600.0,60.0"' in page


def test_a_gap_is_a_gap() -> None:
    page = shown([(0, 1.0), (5, None), (10, 1.0), (15, 1.0), (20, None)])
    assert page.count("<polyline") == 2
    assert "none now" in page


@pytest.mark.parametrize("values", [[], [(0.0, None)]])
def test_without_values_it_says_so(values: list[tuple[float, float | None]]) -> None:
    assert "nothing yet" in shown(values)
    assert "<svg" not in shown(values)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1e15)), max_size=20))
def test_every_point_is_in_the_picture(values: list[tuple[float, float | None]]) -> None:
    for points in re.findall(r'points="([^"]*)"', shown(sorted(values, key=lambda each: each[0]))):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 602
            assert 0 <= y <= 120


def test_numbers_and_durations_have_a_unit_that_suits() -> None:
    assert [number(each) for each in (0, 0.1234, 12, 1234567)] == ["0", "0.123", "12", "1,234,567"]
    assert [duration(each) for each in (0, 4e-6, 0.0123, 2.5)] == ["0 s", "4 µs", "12.3 ms", "2.5 s"]
