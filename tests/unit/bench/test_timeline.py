"""Counts over time keep their sums while their periods grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ensconce.bench.timeline import Timeline


@given(st.lists(st.tuples(st.floats(-1, 1e6), st.booleans()), max_size=100))
def test_nothing_is_lost_and_nothing_grows(events: list[tuple[float, bool]]) -> None:
    timeline = Timeline()
    for at, failed in events:
        timeline.add(at, failed=failed)
    assert sum(timeline.failed) == sum(failed for _, failed in events)
    assert sum(timeline.answered) == len(events) - sum(timeline.failed)
    assert len(timeline.answered) == len(timeline.failed) <= 240
    assert len(timeline.answered) == (
        int(max(0.0, *(at for at, _ in events), 0.0) / timeline.period) + 1 if events else 0
    )


def test_each_counts_in_its_period() -> None:
    timeline = Timeline(1.0)
    for at in (0.0, 0.5, 1.0, 239.9):
        timeline.add(at, failed=False)
    assert (timeline.answered[:2], timeline.answered[239], timeline.period) == ([2, 1], 1, 1.0)
    timeline.add(240.0, failed=True)
    assert (timeline.answered[0], timeline.answered[119], timeline.failed[120], timeline.period) == (3, 1, 1, 2.0)
