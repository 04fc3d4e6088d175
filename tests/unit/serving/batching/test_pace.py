from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from ensconce.serving.batching.pace import MOST_ROWS, Pace, Paces, agree
from ensconce.tfserving.dtypes import BFLOAT16


def feed(pace: Pace, rows: int, seconds: float, times: int = 24) -> None:
    for _ in range(times):
        pace.measured(rows, seconds)


def test_everything_is_merged_until_it_is_known_not_to_pay() -> None:
    pace = Pace(True)
    assert pace.limit == MOST_ROWS
    feed(pace, 1, 0.010)
    assert pace.limit == MOST_ROWS
    feed(pace, 16, 0.160)
    assert pace.limit == 1


def test_the_size_that_pays_best_is_the_limit() -> None:
    pace = Pace(True)
    for rows, seconds in ((1, 76e-6), (4, 147e-6), (16, 296e-6), (32, 3e-3)):
        feed(pace, rows, seconds)
    assert pace.limit == 16


def test_the_largest_that_was_measured_is_no_limit() -> None:
    pace = Pace(True)
    feed(pace, 1, 76e-6)
    feed(pace, 16, 296e-6)
    assert pace.limit == MOST_ROWS


def test_one_slow_inference_changes_nothing() -> None:
    pace = Pace(True)
    feed(pace, 1, 1e-4)
    feed(pace, 7, 2e-4)
    pace.measured(7, 10)
    feed(pace, 8, 2e-4, 15)
    assert pace.limit == MOST_ROWS


def test_what_lost_is_tried_again_after_a_while() -> None:
    pace = Pace(True)
    feed(pace, 1, 0.010)
    feed(pace, 16, 0.160)
    assert pace.limit == 1
    limits = set()
    for _ in range(600):
        pace.measured(1, 0.010)
        limits.add(pace.limit)
    assert limits == {1, MOST_ROWS}


def test_the_first_of_each_size_and_sizes_beyond_do_not_count() -> None:
    pace = Pace(True)
    feed(pace, 1, 1e-4)
    for rows in range(2, MOST_ROWS + 1):
        pace.measured(rows, 100)
    feed(pace, MOST_ROWS + 1, 100)
    assert pace.limit == MOST_ROWS


def test_merging_is_given_up_when_it_was_wrong_three_times() -> None:
    pace = Pace(True)
    for _ in range(3):
        assert pace.merges
        pace.tried(False)
    assert not pace.merges
    assert not Pace(False).merges


def test_a_pace_goes_with_its_servable(doubler: Any) -> None:
    paces, servable = Paces(trusting=False), doubler()
    signature = servable.signatures["serving_default"]
    pace = paces.of(servable, signature)
    assert paces.of(servable, signature) is pace
    assert paces.of(servable, servable.signatures["other"]) is not pace
    other = doubler()
    assert paces.of(other, signature) is not pace
    assert len(paces) == 2
    del servable, other
    gc.collect()
    assert len(paces) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (np.float32([1, 2]), np.float32([1, 2.01]), True),
        (np.float32([1, 2]), np.float32([1, 2.1]), False),
        (np.float32([0, 0]), np.float32([0, 0]), True),
        (np.float32([1]), np.float64([1]), False),
        (np.float32([1]), np.float32([1, 1]), False),
        (np.float32([]), np.float32([]), True),
        (np.float32([np.nan, 1]), np.float32([np.nan, 1]), True),
        (np.float32([np.inf]), np.float32([np.inf]), True),
        (np.float32([np.inf]), np.float32([-np.inf]), False),
        (np.float32([np.nan, 1]), np.float32([1, 1]), False),
        (np.int64([3]), np.int64([4]), False),
        (np.array([b"a"], object), np.array([b"a"], object), True),
        (np.array([b"a"], object), np.array([b"b"], object), False),
        (np.complex64([1 + 1j]), np.complex64([1 + 1.01j]), True),
        (np.array([0x3F80], "<u2").view(BFLOAT16), np.array([0x3F81], "<u2").view(BFLOAT16), True),
        (np.array([0x3F80], "<u2").view(BFLOAT16), np.array([0x4000], "<u2").view(BFLOAT16), False),
    ],
)
def test_rounding_is_no_difference(one: np.ndarray, other: np.ndarray, same: bool) -> None:
    assert agree([{"y": one}], [{"y": other}]) is same


def test_other_outputs_are_a_difference() -> None:
    assert not agree([{"y": np.zeros(1)}], [{"z": np.zeros(1)}])
