from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import grpc
import pytest

from ensconce.client.conduct import Attempts, Conduct, as_ours
from ensconce.client.retry import ATTEMPTS, Budget, may_retry, pause
from ensconce.client.seats import Lease
from ensconce.errors import EnsconceError, EvidenceError, InputError, RefusedError, UnreachableError

UNREACHED = UnreachableError("connect.tcp", "nobody there")


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_only_what_was_unavailable(code: grpc.StatusCode) -> None:
    assert may_retry(code, None, others=True) is (code is grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("reason", "others", "again"),
    [
        (None, False, True),
        (UNREACHED, False, True),
        (RefusedError("policy.mr_enclave", "no"), False, False),
        (EvidenceError("quote.signature", "no"), False, False),
        (RefusedError("policy.mr_enclave", "no"), True, True),
    ],
)
def test_a_refused_replica_is_not_asked_again(reason: EnsconceError | None, others: bool, again: bool) -> None:
    assert may_retry(grpc.StatusCode.UNAVAILABLE, reason, others=others) is again


def test_pauses_grow_and_are_random() -> None:
    assert [pause(attempt, 1.0) for attempt in (1, 2, 3, 20)] == [0.02, 0.04, 0.08, 1.0]
    assert pause(3, 0.25) == 0.02
    assert pause(3, 0.0) == 0.0


def test_the_budget_is_a_tenth_of_the_calls() -> None:
    budget = Budget()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(11):
        budget.earn()
    assert [budget.take(), budget.take()] == [True, False]
    for _ in range(1000):
        budget.earn()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "because"


class Pool:
    """Leases of replicas a, b, c and so on; connections are cut, or cannot be had, as a test says."""

    failure: EnsconceError | None = None
    ends = 0

    def __init__(self) -> None:
        self.replicas = {"a": None}
        self.avoided: list[set[str]] = []

    def lease(self, avoid: Collection[str] = ()) -> Lease[None]:
        self.avoided.append(set(avoid))
        seat = SimpleNamespace(replica_id="abcdefgh"[len(self.avoided) - 1], failure=self.failure, channel=None)
        return Lease(seat, lambda: None, lambda: self.ends)


UNAVAILABLE = Failed(grpc.StatusCode.UNAVAILABLE)


def attempts(pool: Pool, timeout: float = 60.0, conduct: Conduct | None = None) -> Attempts:
    now = conduct or Conduct(clock=lambda: 100.0, chance=lambda: 1.0)
    return Attempts(pool, now, "digits", timeout)  # type: ignore[arg-type]


def test_each_attempt_goes_to_another_replica_after_a_longer_pause_and_they_end() -> None:
    pool = Pool()
    call = attempts(pool)
    for number in range(1, ATTEMPTS):
        call.begin()
        assert call.failed(UNAVAILABLE) == 0.02 * 2 ** (number - 1)
    call.begin()
    with pytest.raises(UnreachableError) as failed:
        call.failed(UNAVAILABLE)
    assert failed.value.check == "predict.unavailable"
    assert pool.avoided == [set("abcdefgh"[:number]) for number in range(ATTEMPTS)]


def test_the_next_attempt_is_within_the_deadline() -> None:
    late, in_time = attempts(Pool(), 0.02), attempts(Pool(), 0.021)
    late.begin()
    with pytest.raises(UnreachableError):
        late.failed(UNAVAILABLE)
    in_time.begin()
    assert in_time.failed(UNAVAILABLE) == 0.02


def test_the_true_reason_is_told() -> None:
    pool = Pool()
    pool.failure, pool.replicas = RefusedError("policy.mr_enclave", "no"), {}
    call = attempts(pool)
    call.begin()
    with pytest.raises(RefusedError) as failed:
        call.failed(UNAVAILABLE)
    assert failed.value is pool.failure


def test_no_attempt_without_a_budget_but_one_for_what_a_lost_connection_took_with_it() -> None:
    conduct, pool = Conduct(clock=lambda: 100.0, chance=lambda: 1.0, budget=Budget(share=0.0, most=1.0)), Pool()
    assert conduct.budget.take()
    refused = attempts(pool, conduct=conduct)
    refused.begin()
    with pytest.raises(UnreachableError):
        refused.failed(UNAVAILABLE)
    cut = attempts(pool, conduct=conduct)
    cut.begin()
    pool.ends += 1
    assert cut.failed(UNAVAILABLE) == 0.02
    cut.begin()
    pool.ends += 1
    with pytest.raises(UnreachableError):
        cut.failed(UNAVAILABLE)


@pytest.mark.parametrize(
    ("code", "kind", "check"),
    [
        (grpc.StatusCode.NOT_FOUND, InputError, "predict.not_found"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnreachableError, "predict.deadline_exceeded"),
        (grpc.StatusCode.INTERNAL, EnsconceError, "predict.internal"),
    ],
)
def test_statuses_as_errors_of_ours(code: grpc.StatusCode, kind: type[EnsconceError], check: str) -> None:
    error = as_ours(Failed(code))
    assert type(error) is kind
    assert error.check == check
    assert "because" in str(error)
