from __future__ import annotations

import pytest

from ensconce.dashboard.exposition import parse_metrics
from ensconce.dashboard.history import KEPT, History, gauge, quantiles, rates


def history(*rounds: dict[str, str]) -> History:
    """A round every two seconds."""
    made = History(["asked", "taken_bucket", "now"])
    for index, pages in enumerate(rounds):
        made.add(2.0 * index, {source: parse_metrics(page.encode()) for source, page in pages.items()})
    return made


def test_a_rate_is_what_all_sources_counted_between_two_rounds() -> None:
    points = history({"a": "asked 10", "b": "asked 1"}, {"a": "asked 14", "b": "asked 3"}).points
    assert rates(points, "asked") == [(2.0, 3.0)]


def test_a_source_that_is_new_or_was_away_counts_from_its_second_reading() -> None:
    points = history({"a": "asked 10"}, {"a": "asked 10", "b": "asked 500"}, {"b": "asked 502"}, {}).points
    assert rates(points, "asked") == [(2.0, 0.0), (4.0, 1.0), (6.0, None)]


def test_a_source_that_restarted_counts_from_zero() -> None:
    assert rates(history({"a": "asked 100"}, {"a": "asked 6"}).points, "asked") == [(2.0, 3.0)]


def test_labels_are_chosen() -> None:
    points = history({"a": 'asked{s="x"} 1'}, {"a": 'asked{s="x"} 5\nasked{s="y"} 2'}).points
    assert rates(points, "asked", lambda labels: labels["s"] == "y") == [(2.0, 1.0)]


def test_a_gauge_is_the_sum_of_what_is_shown() -> None:
    assert gauge(history({"a": "now 2", "b": "now 3"}, {"a": "other 1"}).points, "now") == [(0.0, 5.0), (2.0, None)]


def buckets(*counts: int) -> str:
    return "\n".join(f'taken_bucket{{le="{le}"}} {n}' for le, n in zip(("1", "10", "+Inf"), counts, strict=True))


@pytest.mark.parametrize(
    ("before", "after", "share", "expected"),
    [
        ((0, 0, 0), (10, 10, 10), 0.5, 0.5),
        ((5, 5, 5), (5, 15, 15), 0.5, 5.5),
        ((0, 0, 0), (0, 0, 4), 0.5, 10.0),  # beyond the last limit
        ((3, 4, 5), (3, 4, 5), 0.5, None),
        ((30, 40, 50), (10, 10, 10), 0.5, 0.5),  # restarted
    ],
)
def test_a_quantile_is_of_what_is_new(
    before: tuple[int, ...], after: tuple[int, ...], share: float, expected: float | None
) -> None:
    ((_, found),) = quantiles(history({"a": buckets(*before)}, {"a": buckets(*after)}).points, "taken", share)
    assert found == (None if expected is None else pytest.approx(expected))


def test_buckets_that_say_nothing_do_no_harm() -> None:
    lies = 'taken_bucket{le="x"} 9\ntaken_bucket{le="nan"} 9\ntaken_bucket{le="2"} 1\ntaken_bucket{le="1"} 5'
    ((_, found),) = quantiles(history({"a": "asked 1"}, {"a": lies}).points, "taken", 0.9)
    assert found is not None
    assert 0 <= found <= 2


def test_what_is_kept_is_bounded() -> None:
    made = history(*({"a": "asked 1\nbig 1"} for _ in range(KEPT + 5)))
    assert len(made.points) == KEPT
    assert all(point.readings["a"].samples.keys() == {"asked"} for point in made.points)
