"""Percentiles against exact ones, and the correction against HdrHistogram's own definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.bench.histogram import PRECISION, Histogram

HOUR = 3600 * 10**9
VALUES = st.lists(st.integers(0, HOUR), min_size=1, max_size=200)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(VALUES, st.floats(0, 100))
def test_no_percentile_is_below_the_exact_one_nor_more_than_a_1024th_above(values: list[int], percent: float) -> None:
    percent = round(percent, 3)
    exact = sorted(values)[max(math.ceil(len(values) * round(percent * 1000) / 100_000), 1) - 1]
    found = filled(values).percentile(percent)
    assert exact <= found <= exact + exact / 2**PRECISION


@given(VALUES)
def test_the_ends_and_the_sum_are_exact(values: list[int]) -> None:
    found = filled(values)
    assert (found.smallest, found.largest, found.total, found.count) == (
        min(values),
        max(values),
        sum(values),
        len(values),
    )
    assert sum(count for _, count in found.buckets()) == len(values)


def test_nearest_rank_of_known_numbers() -> None:
    found = filled(list(range(1, 1001)))
    assert [found.percentile(each) for each in (0, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1000]


def test_nothing() -> None:
    assert Histogram().percentile(99) == 0
    assert list(Histogram().buckets()) == []
    assert Histogram().corrected(5).count == 0


def test_memory_is_bounded() -> None:
    histogram = Histogram()
    value = 1
    while value < 10**16:
        histogram.add(value)
        value += max(value // 4096, 1)
    assert len(list(histogram.buckets())) <= 33_500
    assert histogram.largest == HOUR
    histogram.add(-1)
    assert histogram.smallest == 0


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(20, 500))
def test_the_correction_is_hdrhistograms(values: list[int], interval: int) -> None:
    expected = Histogram()
    for value in sorted(set(values)):  # below 2,048 counted exactly; above in steps of 2 and 4
        upper = next(upper for upper, _ in filled(values).buckets() if upper >= value)
        expected.add(upper, values.count(value))
        missing = upper - interval
        while missing >= interval:
            expected.add(missing, values.count(value))
            missing -= interval
    found = filled(values).corrected(interval)
    assert list(found.buckets()) == list(expected.buckets())
    assert (found.count, found.total) == (expected.count, expected.total)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        filled([1]).corrected(0)
