"""One condition of a policy, held against one verdict; and how the values that a policy is made of are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ensconce.errors import InputError, RefusedError
from ensconce.trail import held

__all__ = ["Check", "expect_size", "invalid", "refuse_twice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A condition and whether it holds. Judging raises the first that does not; explaining shows them all.

    Attributes:
        field: of the policy, such as ``mr_enclave``; a refusal's check is ``policy.<field>``.
        passed: the condition holds.
        found: the value in the evidence, for people.
        rule: the policy's line, or what it says where it has no line for it.
        problem: what is wrong when it does not hold.
        remedy: what to do then.
        end: when it ceases to hold, seconds since 1970; None where time changes nothing.
    """

    field: str
    passed: bool
    found: str
    rule: str
    problem: str
    remedy: str
    end: int | None = None

    def expect(self) -> None:
        """Go on only if it holds.

        Raises:
            RefusedError: :meth:`refusal`.
        """
        if not self.passed:
            raise self.refusal()
        label = self.field.replace("_", " ")
        held(f"policy.{self.field}", label, found=self.found, rule=self.rule, end=self.end)

    def refusal(self) -> RefusedError:
        """The refusal that a condition which does not hold gives rise to."""
        return RefusedError(f"policy.{self.field}", self.problem, found=self.found, rule=self.rule, remedy=self.remedy)


def invalid(field: str, found: str, rule: str) -> InputError:
    """The error for a value that no policy may have."""
    return InputError("policy.value", f"wrong value in the policy, {field}", found=repr(found)[:120], rule=rule)


def expect_size(field: str, value: bytes | None, size: int) -> None:
    """Refuse a given value of another length, in bytes.

    Raises:
        InputError: ``policy.value``.
    """
    if value is not None and len(value) != size:
        raise invalid(field, f"{len(value)} bytes", f"{size} bytes")


def refuse_twice(values: Iterable[str], field: str) -> None:
    """Refuse a list that names something twice.

    Raises:
        InputError: ``policy.duplicate``.
    """
    for value, count in Counter(values).items():
        if count > 1:
            raise InputError(
                "policy.duplicate", f"named twice in the policy, {field}", found=value, remedy="keep one of them"
            )
