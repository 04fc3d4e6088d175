"""How ``ensconce policy explain`` prints: every check, the verdict, and the exit status that goes with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from ensconce.appraisal.policy import Acceptance
from ensconce.appraisal.policy_check import Check
from ensconce.appraisal.policy_explanation import Explanation
from ensconce.cli.output import print_json, say

__all__ = ["print_explanation"]


def print_explanation(explanation: Explanation, json: bool) -> None:
    """Print it; raises ``typer.Exit`` with 4 when the policy refuses."""
    outcome = explanation.outcome
    accepted = isinstance(outcome, Acceptance)
    if json:
        print_json(_value(explanation))
    else:
        say("The evidence is genuine. The platform:")
        _print(explanation.platform)
        for identity, checks in explanation.identities:
            say(f"Identity {identity.name!r}:")
            _print(checks)
        if isinstance(outcome, Acceptance):
            say(f"Accepted as {outcome.identity.name!r}.")
            say(f"It may receive: {', '.join(outcome.identity.receives) or 'nothing'}")
        else:
            say(f"Refused: {outcome}")
    if not accepted:
        raise typer.Exit(4)


def _print(checks: Iterable[Check]) -> None:
    for check in checks:
        say(f"  {'yes' if check.passed else 'NO '}  {check.field}: {check.found}")
        if not check.passed:
            say(f"       rule: {check.rule}")


def _value(explanation: Explanation) -> dict[str, Any]:
    outcome = explanation.outcome
    value: dict[str, Any] = {
        "accepted": isinstance(outcome, Acceptance),
        "platform": [_check(check) for check in explanation.platform],
        "identities": [
            {"name": identity.name, "checks": [_check(check) for check in checks]}
            for identity, checks in explanation.identities
        ],
    }
    if isinstance(outcome, Acceptance):
        value |= {"identity": outcome.identity.name, "receives": list(outcome.identity.receives)}
    else:
        value["refusal"] = outcome.fields()
    return value | {"verdict": explanation.verdict.to_json_object()}


def _check(check: Check) -> dict[str, str | bool]:
    return {"field": check.field, "passed": check.passed, "found": check.found, "rule": check.rule}
