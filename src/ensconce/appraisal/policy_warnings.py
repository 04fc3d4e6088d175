"""What is worth saying about a policy that is no error."""

from __future__ import annotations

from collections.abc import Iterator

from ensconce.appraisal.policy import MAX_SERIAL, Policy, StatusUntil
from ensconce.appraisal.policy_tcb import day_of

__all__ = ["warnings_about"]

_SOON_DAYS = 30
_HIGH_SERIAL = MAX_SERIAL // 2


def warnings_about(policy: Policy, now: int) -> tuple[str, ...]:
    """One sentence for each: exceptions that have ended or soon will, and lines that promise little.

    Args:
        policy: the policy.
        now: the time, seconds since 1970.
    """
    return (*_head(policy), *_exceptions(policy, now), *_roots(policy), *_identities(policy))


def _head(policy: Policy) -> Iterator[str]:
    if policy.serial > _HIGH_SERIAL:
        yield f"serial: there is little left up to {MAX_SERIAL}, the highest, and there is no way back"
    if policy.owners is not None and policy.service is None:
        yield "service: not given, so that whoever applies it may do so for any service of these owners"


def _exceptions(policy: Policy, now: int) -> Iterator[str]:
    today = day_of(now)
    for each in policy.tcb_statuses:
        if not isinstance(each, StatusUntil):
            continue
        left = (each.until - today).days
        if left < 0:
            yield f"tcb_statuses: the exception for {each.status} ended on {each.until}"
        elif left <= _SOON_DAYS:
            when = "today" if left == 0 else f"in {left} day{'s' if left > 1 else ''}, on {each.until}"
            yield f"tcb_statuses: the exception for {each.status} ends {when}"


def _roots(policy: Policy) -> Iterator[str]:
    if any(root != "intel" for root in policy.roots):
        yield "roots: no hardware protects an enclave of a simulated platform"


def _identities(policy: Policy) -> Iterator[str]:
    for identity in policy.identities:
        who = f"identity {identity.name!r}"
        if identity.debug:
            yield f"{who}: the host of a debug enclave reads all that it receives"
        if identity.wire_v1 is not None:
            yield f"{who}: evidence over Gramine's protocol proves its key, not that it is fresh"
        if identity.tdx is not None:
            free = [name for name in ("rtmr0", "rtmr1", "rtmr2", "rtmr3") if getattr(identity.tdx, name) is None]
            if free:
                yield f"{who}: {', '.join(free)} not compared; mr_td alone is the firmware, whatever it starts"
