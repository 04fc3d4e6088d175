from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address
from ensconce.gateway.balance import REST_S, Balancer

A, B, C = Address("127.0.0.1", 1), Address("127.0.0.1", 2), Address("127.0.0.1", 3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def balancer(*targets: tuple[str, int]) -> tuple[Balancer, Clock]:
    clock = Clock()
    made = Balancer(clock)
    made.replace(targets)
    return made, clock


def test_nobody_there() -> None:
    made, _ = balancer()
    assert made.order() == []


def test_round_robin_among_equals() -> None:
    made, _ = balancer(A, B, C)
    assert [made.order()[0] for _ in range(6)] == [A, B, C, A, B, C]


def test_a_newcomer_gets_every_connection_until_it_has_its_share() -> None:
    made, _ = balancer(A, B)
    with contextlib.ExitStack() as held:
        for target in (A, A, A, B, B, B):
            held.enter_context(made.holding(target))
        made.replace([A, B, C])
        for _ in range(3):
            assert made.order()[0] == C
            held.enter_context(made.holding(C))
        assert made.connections == {A: 3, B: 3, C: 3}
    assert made.connections == {A: 0, B: 0, C: 0}


def test_one_that_failed_rests_and_is_tried_last() -> None:
    made, clock = balancer(A, B)
    made.failed(A)
    assert all(made.order() == [B, A] for _ in range(4))
    clock.now = REST_S
    assert {made.order()[0] for _ in range(2)} == {A, B}


def test_all_resting_are_still_tried() -> None:
    made, _ = balancer(A, B)
    made.failed(A)
    made.failed(B)
    assert set(made.order()) == {A, B}


def test_those_that_left_keep_their_count_while_they_have_connections() -> None:
    made, _ = balancer(A, B)
    with made.holding(A):
        made.replace([B])
        assert made.connections == {B: 0, A: 1}
        assert made.order() == [B]
    assert made.connections == {B: 0}


@given(st.integers(1, 5), st.integers(0, 60))
def test_held_connections_differ_by_one_at_most(count: int, connections: int) -> None:
    made, _ = balancer(*(Address("127.0.0.1", port) for port in range(1, count + 1)))
    with contextlib.ExitStack() as held:
        for _ in range(connections):
            held.enter_context(made.holding(made.order()[0]))
        counts = made.connections.values()
        assert max(counts) - min(counts) <= 1
