from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ensconce.provisioning.rates import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_a_rate_for_each_key_by_itself() -> None:
    clock = Clock()
    buckets = TokenBuckets(rate=0.5, burst=3, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b")
    clock.now += 1.9
    assert not buckets.take("a")
    clock.now += 0.1
    assert buckets.take("a")
    assert not buckets.take("a")
    clock.now += 1e9
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_asking_in_vain_does_not_lengthen_the_wait() -> None:
    clock = Clock()
    buckets = TokenBuckets(rate=1, burst=1, clock=clock)
    assert buckets.take("a")
    for _ in range(9):
        clock.now += 0.1
        assert not buckets.take("a")
    clock.now += 0.11
    assert buckets.take("a")


def test_looking_takes_nothing_and_is_not_remembered() -> None:
    clock = Clock()
    buckets = TokenBuckets(rate=1, burst=2, clock=clock)
    assert [buckets.spent("a") for _ in range(9)] == [False] * 9
    assert len(buckets) == 0
    assert [buckets.take("a") for _ in range(2)] == [True, True]
    assert buckets.spent("a")
    clock.now += 1
    assert not buckets.spent("a")
    assert buckets.take("a")


@given(st.lists(st.integers(0, 40), max_size=200))
def test_the_table_is_bounded_and_forgets_whoever_asked_longest_ago(keys: list[int]) -> None:
    buckets = TokenBuckets(rate=1, burst=1, clock=Clock(), size=8)
    recent: list[int] = []
    for key in keys:
        fresh = buckets.take(str(key))
        assert fresh == (key not in recent)
        recent = [*[each for each in recent if each != key][-7:], key]
        assert len(buckets) <= 8
