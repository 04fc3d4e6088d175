from __future__ import annotations

import grpc
import pytest

from ensconce.client.calls import Conduct, as_ours
from ensconce.client.retry import ATTEMPTS, Budget, may_retry, pause
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


def conduct() -> Conduct:
    return Conduct(clock=lambda: 100.0, chance=lambda: 1.0)


def test_the_next_attempt_is_within_the_deadline() -> None:
    unavailable = Failed(grpc.StatusCode.UNAVAILABLE)
    assert conduct().wait(2, unavailable, None, 101.0, others=True) == 0.04
    with pytest.raises(UnreachableError) as failed:
        conduct().wait(2, unavailable, None, 100.03, others=True)
    assert failed.value.check == "predict.unavailable"
    with pytest.raises(UnreachableError) as failed:
        conduct().wait(ATTEMPTS, unavailable, UNREACHED, 101.0, others=True)
    assert failed.value is UNREACHED


def test_no_attempt_without_a_budget() -> None:
    one = conduct()
    unavailable = Failed(grpc.StatusCode.UNAVAILABLE)
    for _ in range(10):
        one.wait(1, unavailable, None, 101.0, others=True)
    with pytest.raises(UnreachableError):
        one.wait(1, unavailable, None, 101.0, others=True)


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
