"""The rules that every parser is held to."""

from __future__ import annotations

import pytest
from fuzz.target import InvariantError, Refused, attempt, holds

from ensconce.errors import EnsconceError, EvidenceError, InputError


class NarrowerError(EvidenceError):
    pass


def refusing(error: BaseException) -> object:
    def parse() -> None:
        raise error

    return lambda: attempt(parse, EvidenceError)


def test_a_documented_refusal() -> None:
    error = EvidenceError("a.b", "no", found="x")
    refused = refusing(error)()
    assert isinstance(refused, Refused)
    assert refused.error is error


def test_a_value_goes_through() -> None:
    assert attempt(lambda: 7, EvidenceError) == 7


@pytest.mark.parametrize(
    "error", [InputError("a", "b"), EnsconceError("a", "b"), NarrowerError("a", "b"), EvidenceError("a", "b" * 5000)]
)
def test_a_refusal_that_is_not_documented_or_too_long(error: EnsconceError) -> None:
    with pytest.raises(InvariantError):
        refusing(error)()


def test_anything_else_is_a_finding() -> None:
    with pytest.raises(KeyError):
        refusing(KeyError("x"))()


def test_invariants() -> None:
    holds(1, "no")
    with pytest.raises(InvariantError, match="no"):
        holds(0, "no")
