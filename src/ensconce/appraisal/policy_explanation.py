"""Why a policy accepts or refuses a verdict: every check, not only the first that fails."""

from __future__ import annotations

from dataclasses import dataclass

from ensconce.appraisal.policy import Acceptance, Identity, Policy, debug_check
from ensconce.appraisal.policy_check import Check
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import RefusedError

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """All checks of one verdict, in the order in which they are judged, and what came of it.

    Attributes:
        verdict: what was judged.
        platform: the checks that do not depend on the identity.
        identities: those of each identity, in the policy's order; of one for another kind of environment, that alone.
        outcome: the policy's word.
    """

    verdict: Verdict
    platform: tuple[Check, ...]
    identities: tuple[tuple[Identity, tuple[Check, ...]], ...]
    outcome: Acceptance | RefusedError


def explain(policy: Policy, verdict: Verdict) -> Explanation:
    """Hold a verdict against every line of a policy."""
    outcome: Acceptance | RefusedError
    try:
        outcome = policy.judge(verdict)
    except RefusedError as error:
        outcome = error
    identities = tuple((identity, _checks(identity, verdict)) for identity in policy.identities)
    return Explanation(verdict, tuple(policy.platform_checks(verdict)), identities, outcome)


def _checks(identity: Identity, verdict: Verdict) -> tuple[Check, ...]:
    if identity.tee != verdict.tee:
        other = Check(
            field="tee",
            passed=False,
            found=verdict.tee,
            rule=f"{identity.tee} (identity {identity.name!r})",
            problem="this identity is of another kind of environment",
            remedy="name an identity of this kind",
        )
        return (other,)
    return (debug_check(verdict.report, [identity]), *identity.checks(verdict.report))
