from __future__ import annotations

import pytest

from ensconce.dashboard.exposition import parse_metrics
from ensconce.dashboard.history import KEPT, History, Measure, Series, gauge, quantile, rate

WANTED = {"asked", "taken_bucket", "now"}
LABELS = {"s", "le"}


def seen(measure: Measure, *rounds: dict[str, str]) -> Series:
    """A round every two seconds."""
    history = History({"it": measure})
    for index, pages in enumerate(rounds):
        history.add(
            2.0 * index, {source: parse_metrics(page.encode(), WANTED, LABELS) for source, page in pages.items()}
        )
    return history.series["it"]


def test_a_rate_is_what_all_sources_counted_between_two_rounds() -> None:
    assert seen(rate("asked"), {"a": "asked 10", "b": "asked 1"}, {"a": "asked 14", "b": "asked 3"}) == ((2.0, 3.0),)


def test_a_source_that_is_new_or_was_away_counts_from_its_second_reading() -> None:
    rounds = ({"a": "asked 10"}, {"a": "asked 10", "b": "asked 500"}, {"b": "asked 502"}, {})
    assert seen(rate("asked"), *rounds) == ((2.0, 0.0), (4.0, 1.0), (6.0, None))


def test_a_source_that_restarted_counts_from_zero() -> None:
    assert seen(rate("asked"), {"a": "asked 100"}, {"a": "asked 6"}) == ((2.0, 3.0),)


def test_a_counter_that_is_not_shown_yet_stands_at_zero_where_its_source_is_known() -> None:
    rounds = ({"a": "now 1", "b": "other 1"}, {"a": "now 1", "b": "other 1"}, {"a": "now 1\nasked 4"}, {"b": "x 1"})
    assert seen(rate("asked", beside="now"), *rounds) == ((2.0, 0.0), (4.0, 2.0), (6.0, None))


def test_labels_are_chosen() -> None:
    rounds = ({"a": 'asked{s="x"} 1'}, {"a": 'asked{s="x"} 5\nasked{s="y"} 2'})
    assert seen(rate("asked", lambda labels: labels["s"] == "y"), *rounds) == ((2.0, 1.0),)


def test_a_gauge_is_the_sum_of_what_is_shown() -> None:
    rounds = ({}, {"a": "now 2", "b": "now 3"}, {"a": "other 1"})
    assert seen(gauge("now"), *rounds) == ((2.0, 5.0), (4.0, None))


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
    ((_, found),) = seen(quantile("taken", share), {"a": buckets(*before)}, {"a": buckets(*after)})
    assert found == (None if expected is None else pytest.approx(expected))


def test_buckets_that_say_nothing_do_no_harm() -> None:
    lies = 'taken_bucket{le="x"} 9\ntaken_bucket{le="nan"} 9\ntaken_bucket{le="2"} 1\ntaken_bucket{le="1"} 5'
    ((_, found),) = seen(quantile("taken", 0.9), {"a": "asked 1"}, {"a": lies})
    assert found is not None
    assert 0 <= found <= 2


def test_what_is_kept_is_bounded() -> None:
    values = seen(rate("asked"), *({"a": "asked 1"} for _ in range(KEPT + 5)))
    assert len(values) == KEPT


def test_a_clock_that_stands_still_adds_nothing() -> None:
    history = History({"it": rate("asked")})
    for value in (1, 2):
        history.add(7.0, {"a": parse_metrics(b"asked %d" % value, WANTED, LABELS)})
    assert history.series["it"] == ()
