"""What the lint says: findings, and what a check hands in before its rule is looked up."""

from __future__ import annotations

from dataclasses import dataclass

from ensconce.enclave.lint_rule import Severity
from ensconce.enclave.lint_rules import RULES

__all__ = ["Finding", "Hit"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule applies.

    Attributes:
        code: the rule's.
        key: the dotted name of what it applies to; empty for what is missing altogether.
        problem: what is there, or missing: one clause; nothing secret in it.
        line: where, when the key does not say it.
        severity: instead of the rule's, where this case is another.
    """

    code: str
    key: str
    problem: str
    line: int | None = None
    severity: Severity | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a manifest.

    Attributes:
        check: dotted name, ``lint.`` and the rule's code, stable across releases.
        severity: ``refuse`` keeps the manifest from being signed.
        problem: what is there, or missing.
        attack: what somebody can do because of it.
        remedy: what to do about it.
        invariant: the invariant that it breaks, or nothing.
        key: the dotted name of the option; empty where none is at fault.
        line: its line in the file, from 1; None when it is not there.
    """

    check: str
    severity: Severity
    problem: str
    attack: str
    remedy: str
    invariant: str = ""
    key: str = ""
    line: int | None = None

    @classmethod
    def of(cls, hit: Hit, line: int | None) -> Finding:
        """The finding that ``hit`` is, by its rule."""
        rule = RULES[hit.code]
        return cls(
            check=f"lint.{hit.code}",
            severity=hit.severity or rule.severity,
            problem=hit.problem,
            attack=rule.attack,
            remedy=rule.remedy,
            invariant=rule.invariant,
            key=hit.key,
            line=line,
        )

    def to_json_object(self) -> dict[str, str | int | None]:
        """The finding as ``--json`` shows it."""
        return {
            "check": self.check,
            "severity": self.severity,
            "invariant": self.invariant or None,
            "key": self.key or None,
            "line": self.line,
            "problem": self.problem,
            "attack": self.attack,
            "remedy": self.remedy,
        }
