from __future__ import annotations

from ensconce.provisioning.refusal_budget import RefusalBudget


def test_a_burst_then_a_trickle_and_a_count_of_the_rest() -> None:
    clock = [0.0]
    budget = RefusalBudget(burst=3, per_second=0.5, clock=lambda: clock[0])
    assert [budget.take() for _ in range(5)] == [0, 0, 0, None, None]
    clock[0] = 1.9
    assert budget.take() is None
    clock[0] = 2.0
    # Three were left out meanwhile, and the next entry says so.
    assert budget.take() == 3
    assert budget.take() is None
    clock[0] = 1000.0
    assert [budget.take() for _ in range(4)] == [1, 0, 0, None]
