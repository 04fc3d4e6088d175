"""Rates, percentiles and ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.serving.measure import Entry, WrongAnswerError, agreement, cells_of, check
from benchmarks.serving.results import Cell, Request, Run, percentile, ratio, summarize
from benchmarks.serving.soak import slope
from benchmarks.serving.tables import comparisons, from_json, markdown, text, to_json


def test_a_few_requests_all_count() -> None:
    # Two at once, one after the other computed: 1 s each.
    requests = [Request(0, 1), Request(0, 2), Request(1, 2), Request(2, 2)]
    run = summarize(requests, 2)
    assert (run.requests, run.rate, run.p50, run.p99) == (4, 1.0, 2, 2)


def test_of_many_the_first_and_the_last_are_left_out() -> None:
    # A second is lost before the first answer, and one before the last; between them there are 100 a second.
    requests = [Request(0, 1.0)]
    requests += [Request(1 + index / 100, 0.01) for index in range(398)]
    requests += [Request(4.98, 1.0)]
    run = summarize(requests, 1)
    assert run.requests == 340
    assert run.rate == pytest.approx(100)
    assert run.p99 == pytest.approx(0.01)


def test_without_requests_there_is_no_run() -> None:
    with pytest.raises(ValueError, match="no requests"):
        summarize([], 1)


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1), (0, 1)])
def test_percentiles_are_values_that_occurred(percent: float, expected: int) -> None:
    assert percentile(list(range(1, 101)), percent) == expected


def test_percentile_of_few() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0], 99) == 3.0


def test_ratios_are_those_of_each_round() -> None:
    # The second round was slow for both: only the ratio of each round says that nothing changed.
    each = ratio([200, 20, 300], [100, 10, 100])
    assert (each.median, each.low, each.high) == (2, 2, 3)
    assert str(each) == "2.00 (2.00 to 3.00)"
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratio([1, 2], [1])
    with pytest.raises(ValueError, match="no rounds"):
        ratio([], [])


def run(rate: float, p99: float = 0.1) -> Run:
    return Run(100, rate, p99 / 2, p99)


def test_the_best_other_is_another_one_for_the_tail() -> None:
    runs = {
        "engine": [run(100.0)],
        "deployed": [run(96.0, 0.01)],
        "mlserver": [run(24.0, 0.05)],
        "kserve": [run(32.0, 0.08)],
    }
    found = {name: each.median for name, each in comparisons(runs)}
    assert found == {
        "deployed / engine, requests/s": 0.96,
        "deployed / best other (kserve), requests/s": 3.0,
        "best other (mlserver) / deployed, p99": 5.0,
    }


def test_what_was_not_measured_is_not_compared() -> None:
    assert list(comparisons({"plain": [run(1)]})) == []


def test_results_survive_their_file_and_become_tables() -> None:
    cell = Cell("tiny", 8, 16)
    found = {cell: {"engine": [run(1000.0), run(3000.0), run(2000.0)], "plain": [run(500.0), run(1000.0), run(1500.0)]}}
    labels = {"engine": "the engine", "plain": "the server"}
    facts = {
        "processor": "P", "processors": 2, "load": 0.0, "when": "now", "rounds": 3, "versions": {"V": "1"},
        "agreement": {"bf16": 0.995}, "network": "reno",
    }  # fmt: skip
    assert from_json(to_json(found, labels, facts)) == found
    page = markdown(found, labels, facts)
    assert "| the engine | 2,000 (1,000 to 3,000) |" in page
    assert "| batch 8, 16 at once: plain / engine, requests/s | 0.50 (0.33 to 0.75) |" in page
    assert "Top-1 agreement, bf16: 99.50%" in page
    assert "P, 2 processors, load 0.0 before; TCP: reno; now UTC" in page
    assert "tiny, batch 8, concurrency 16" in text(found, labels)


def test_cells_are_all_combinations() -> None:
    assert cells_of(["a"], [1, 8], [1]) == [Cell("a", 1, 1), Cell("a", 8, 1)]


def test_agreement_is_a_part_of_one() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 3, 5]) == 0.75
    with pytest.raises(ValueError, match="shorter"):
        agreement([1, 2], [1])


def test_the_slope_is_that_of_the_last_two_thirds() -> None:
    seconds = list(range(9))
    assert slope(seconds, [0, 50, 90, 100, 102, 104, 106, 108, 110]) == pytest.approx(2)
    assert slope([0], [5]) == 0
    assert np.isfinite(slope([0, 1], [5, 6]))


class Answering:
    """A contestant that answers while it is not set aside."""

    def __init__(self, found: list[int]) -> None:
        self._found, self.paused = found, True

    def resume(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def classes(self, model: str, images: Any) -> list[int]:
        assert not self.paused
        return self._found[: len(images)]


@pytest.mark.parametrize(("second", "wrong"), [([1, 2], None), ([1, 3], "b, m: classes .1, 3., expected .1, 2.")])
def test_who_is_set_aside_is_asked_nothing_when_all_are_compared(second: list[int], wrong: str | None) -> None:
    both: list[Any] = [Answering([1, 2]), Answering(second)]
    entries = [Entry(key, key, each, {"m": "m"}) for key, each in zip("ab", both, strict=True)]
    images = {"m": np.zeros((2, 1))}
    if wrong is None:
        check(entries, images, [1, 2])
    else:
        with pytest.raises(WrongAnswerError, match=wrong):
            check(entries, images, [1, 2])
    assert all(each.paused for each in both)
