"""One hierarchy of errors; every error knows what was checked, what was found, under which rule, and the remedy.

Each class fixes the exit status that a command ends with:

====  =====================================================================
   1  something failed that is none of the below (``EnsconceError``)
   2  the input or the configuration is wrong (``InputError``)
   3  the evidence is not genuine (``EvidenceError``)
   4  the evidence is genuine, but the policy refuses it (``RefusedError``)
   5  the other side could not be reached (``UnreachableError``)
   6  stored data was changed or is damaged (``IntegrityError``)
 130  interrupted (Ctrl-C)
====  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

__all__ = [
    "EnsconceError",
    "EvidenceError",
    "InputError",
    "IntegrityError",
    "RefusedError",
    "UnreachableError",
    "place_of",
    "printable",
    "restore",
]


class EnsconceError(Exception):
    """A check that failed: one line for people (``str``), fields for programs (``fields``).

    Args:
        check: dotted name of the check, stable across releases, e.g. ``quote.signature`` or ``policy.mr_enclave``.
        problem: what is wrong, a short sentence without a full stop.
        found: the offending value, shortened; never a secret.
        rule: what would have been right, or the line of policy or specification that says so.
        remedy: what the reader can do about it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        check: str,
        problem: str,
        *,
        found: str | None = None,
        rule: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(check, problem, found, rule, remedy)
        self.check = check
        self.problem = problem
        self.found = found
        self.rule = rule
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.problem} [{self.check}]"
        if self.found is not None:
            text += f"; found: {self.found}"
        if self.rule is not None:
            text += f"; rule: {self.rule}"
        if self.remedy is not None:
            text += f"; remedy: {self.remedy}"
        # What was found may come from a stranger: nothing in it may steer a terminal or fake a second line.
        return printable(" ".join(text.split()))

    def fields(self) -> dict[str, str]:
        """The error as flat fields for ``--json``, logs and wire refusals; absent ones are left out."""
        every = {
            "check": self.check,
            "problem": self.problem,
            "found": self.found,
            "rule": self.rule,
            "remedy": self.remedy,
        }
        return {name: value for name, value in every.items() if value is not None}

    def altered(
        self,
        *,
        problem: str | None = None,
        found: str | None = None,
        rule: str | None = None,
        remedy: str | None = None,
    ) -> Self:
        """A new error of the same kind and check, with the given fields in place of its own."""
        return type(self)(
            self.check,
            self.problem if problem is None else problem,
            found=self.found if found is None else found,
            rule=self.rule if rule is None else rule,
            remedy=self.remedy if remedy is None else remedy,
        )


class InputError(EnsconceError):
    """An argument, a file of ours or a configuration is wrong, or a local resource (port, disk) is not to be had."""

    exit_status = 2


class EvidenceError(EnsconceError):
    """Evidence is malformed, or not genuine: nothing may be concluded from it."""

    exit_status = 3


class RefusedError(EnsconceError):
    """A policy judged genuine evidence and said no."""

    exit_status = 4


class UnreachableError(EnsconceError):
    """The other side did not answer, or did not speak the protocol."""

    exit_status = 5


class IntegrityError(EnsconceError):
    """Stored data (an encrypted file, a log, a keystore) was changed, truncated or swapped."""

    exit_status = 6


def restore(fields: Mapping[str, str], exit_status: int) -> EnsconceError:
    """The error that another process reported as ``fields()`` and an exit status, as an exception again."""
    kinds = (InputError, EvidenceError, RefusedError, UnreachableError, IntegrityError)
    kind = next((kind for kind in kinds if kind.exit_status == exit_status), EnsconceError)
    return kind(
        fields.get("check", "unknown"),
        fields.get("problem", "the other process failed"),
        found=fields.get("found"),
        rule=fields.get("rule"),
        remedy=fields.get("remedy"),
    )


def printable(text: str) -> str:
    """A stranger's text in one line, with ``?`` for what would steer a terminal or turn the direction of writing."""
    return "".join(each if each.isprintable() else "?" for each in text)


def place_of(error: BaseException) -> str:
    """Where an error was raised, ``file:line``: with its kind, all that is told of one whose text may hold secrets."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "an unknown place"
