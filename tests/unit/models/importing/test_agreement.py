from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ensconce.models.importing.agreement import Distance


def distance(original: Any, converted: Any, dtype: Any = np.float32) -> Distance:
    result = Distance()
    result.add(np.array(original, dtype), np.array(converted, dtype))
    return result


def test_against_numbers_worked_out_by_hand() -> None:
    found = distance([[1.0, 4.0], [3.0, 2.0], [0.5, 0.0]], [[1.0, 4.0], [1.0, 2.0], [0.5, 0.25]])
    assert found.max_abs == 2.0
    assert found.max_rel == 0.5
    assert found.top1 == pytest.approx(2 / 3)


def test_adds_up_over_answers() -> None:
    found = distance([[1.0, 0.0]], [[1.0, 0.5]])
    found.add(np.array([[10.0, 0.0]], np.float32), np.array([[0.0, 10.0]], np.float32))
    assert (found.max_abs, found.magnitude, found.max_rel, found.top1) == (10.0, 10.0, 1.0, 0.5)


def test_is_the_same_as_a_computation_over_all_at_once() -> None:
    generator = np.random.default_rng(1)
    left = generator.standard_normal((64, 5)).astype(np.float32)
    right = left + generator.standard_normal((64, 5)).astype(np.float32) / 10
    found = Distance()
    for at in range(0, 64, 7):
        found.add(left[at : at + 7], right[at : at + 7])
    assert found.max_abs == pytest.approx(
        max(abs(float(a) - float(b)) for a, b in zip(left.flat, right.flat, strict=True))
    )
    assert found.max_rel == pytest.approx(found.max_abs / max(abs(float(a)) for a in left.flat))
    same = [list(a).index(max(a)) == list(b).index(max(b)) for a, b in zip(left, right, strict=True)]
    assert found.top1 == sum(same) / 64


def test_integers_and_strings_agree_by_value() -> None:
    found = distance([1, 2, 3, 4], [1, 2, 3, 6], np.int64)
    assert (found.max_abs, found.max_rel, found.top1) == (2.0, 0.5, 0.75)
    assert distance([2**63], [2**63], np.uint64).max_abs == 0
    words = distance([[b"a", b"b"]], [[b"a", b"c"]], object)
    assert (words.max_rel, words.top1) == (1.0, 0.5)
    assert distance([[b"a"]], [[b"a"]], object).max_rel == 0
    assert distance([True, False], [True, True], bool).max_abs == 1


@pytest.mark.parametrize(
    ("original", "converted"),
    [([math.nan], [0.0]), ([0.0], [math.nan]), ([math.inf], [-math.inf]), ([1.0], [math.inf]), ([1.0], [[1.0]])],
)
def test_what_one_of_them_alone_has_is_as_far_as_can_be(original: Any, converted: Any) -> None:
    assert distance(original, converted).max_rel == math.inf


def test_what_neither_has_as_a_number_is_the_same() -> None:
    assert distance([math.nan, math.inf, 1.0], [math.nan, math.inf, 1.0]).max_rel == 0
    assert distance(np.zeros((0, 3)), np.zeros((0, 3))).top1 is None


def test_of_zeros_the_difference_itself_counts() -> None:
    assert distance([0.0], [0.25]).max_rel == 0.25
