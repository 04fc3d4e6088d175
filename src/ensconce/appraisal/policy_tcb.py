"""What a policy says of platforms: how up to date they must be, until when an exception holds, and which they are."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any

from ensconce.appraisal.policy_check import Check, invalid, refuse_twice
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.errors import InputError

__all__ = [
    "Advisories",
    "StatusUntil",
    "day_of",
    "expect_no_end",
    "floor_check",
    "platform_check",
    "status_check",
    "status_json",
]

_ADVISORY = re.compile(r"[A-Z]{1,16}-SA-[0-9]{5}")


def day_of(at: int) -> datetime.date:
    """The UTC day of a time in seconds since 1970."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).date()


def _end_of(day: datetime.date) -> int:
    """The first second after a UTC day, since 1970."""
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    return int(midnight.timestamp()) + 24 * 3600


@dataclass(frozen=True, slots=True)
class StatusUntil:
    """An exception: a TCB status that is accepted for a while.

    Attributes:
        status: any but UpToDate, which is no exception.
        until: the last day on which it is accepted, UTC, all of it.

    Raises:
        InputError: UpToDate with an end.
    """

    status: TcbStatus
    until: datetime.date

    def __post_init__(self) -> None:
        if self.status is TcbStatus.UP_TO_DATE:
            raise invalid("tcb_statuses", f"{self.status} until {self.until}", "UpToDate has no end")


def expect_no_end(status: TcbStatus) -> None:
    """Refuse a status that is accepted without an end although it is an exception.

    Raises:
        InputError: ``policy.tcb_statuses``.
    """
    if status is not TcbStatus.UP_TO_DATE:
        raise InputError(
            "policy.tcb_statuses",
            "an exception needs an end",
            found=status.value,
            rule="every status but UpToDate is accepted until a day",
            remedy=f"write {{status: {status}, until: YYYY-MM-DD}}",
        )


@dataclass(frozen=True, kw_only=True)
class Advisories:
    """Which of Intel's security advisories a platform may be affected by.

    Attributes:
        accept: ids such as INTEL-SA-00615; when given, an advisory that is not among them refuses the platform. Empty
            means that every advisory does.
        refuse: ids that refuse it, whatever else is accepted.

    Raises:
        InputError: nothing is given, an id is none, or one is in both.
    """

    accept: tuple[str, ...] | None = None
    refuse: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.accept is None and not self.refuse:
            raise InputError(
                "policy.advisories",
                "the advisories say nothing",
                rule="accept or refuse, or both",
                remedy="name some, or remove advisories:",
            )
        for field, ids in (("accept", self.accept or ()), ("refuse", self.refuse)):
            for each in ids:
                # An id that is misspelt under refuse: would refuse nothing, and nobody would notice.
                if not _ADVISORY.fullmatch(each):
                    raise invalid(f"advisories.{field}", each, "an advisory's id, such as INTEL-SA-00615")
            refuse_twice(ids, f"advisories.{field}")
        refuse_twice((*(self.accept or ()), *self.refuse), "advisories: accept and refuse")

    def check(self, advisory_ids: tuple[str, ...]) -> Check:
        """The condition that none of the platform's advisories refuses it."""
        bad = [each for each in advisory_ids if each in self.refuse]
        rule = f"advisories: {{refuse: [{', '.join(self.refuse)}]}}"
        if self.accept is not None and not bad:
            bad = [each for each in advisory_ids if each not in self.accept]
            rule = f"advisories: {{accept: [{', '.join(self.accept)}]}}"
        return Check(
            field="advisories",
            passed=not bad,
            found=", ".join(bad or advisory_ids) or "none",
            rule=rule,
            problem="the platform is affected by a security advisory that is not accepted",
            remedy="update the platform as the advisory says, or accept it by its id under advisories:",
        )

    def to_json_object(self) -> dict[str, Any]:
        """The lists as the policy file has them, sorted."""
        value: dict[str, Any] = {} if self.accept is None else {"accept": sorted(self.accept)}
        return value | ({"refuse": sorted(self.refuse)} if self.refuse else {})


def status_check(accepted: tuple[TcbStatus | StatusUntil, ...], verdict: Verdict) -> Check:
    """The condition that the platform's status is accepted, on the day for which the verdict holds."""
    ends = [each.until for each in accepted if isinstance(each, StatusUntil) and each.status is verdict.status]
    advisories = f" ({', '.join(verdict.advisory_ids)})" if verdict.advisory_ids else ""
    day = day_of(verdict.at)
    if ends and day > ends[0]:
        return Check(
            field="tcb_status",
            passed=False,
            found=f"{verdict.status}{advisories} on {day}",
            rule=f"tcb_statuses: {{status: {verdict.status}, until: {ends[0]}}}",
            problem="the platform's TCB status was accepted for a while, which is over",
            remedy="update the platform's firmware, or move the end of the exception under tcb_statuses:",
        )
    names = ", ".join(each if isinstance(each, TcbStatus) else f"{each.status} until {each.until}" for each in accepted)
    return Check(
        field="tcb_status",
        passed=bool(ends) or verdict.status in accepted,
        found=verdict.status + advisories,
        rule=f"tcb_statuses: [{names}]",
        problem="the platform's TCB status is not accepted",
        remedy="update the platform's firmware, or accept this status by name under tcb_statuses:",
        end=_end_of(ends[0]) if ends else None,
    )


def floor_check(lowest: int, verdict: Verdict) -> Check:
    """The condition that both documents which the status was found with are recent enough."""
    numbers = verdict.tcb_evaluation_data_number, verdict.qe_evaluation_data_number
    return Check(
        field="min_tcb_evaluation_data_number",
        passed=min(numbers) >= lowest,
        found=f"{numbers[0]} (TCB info), {numbers[1]} (QE identity)",
        rule=f"min_tcb_evaluation_data_number: {lowest}",
        problem="the platform was judged by collateral from before a TCB recovery that the policy demands",
        remedy="fetch newer collateral; if its source has none, use another source",
    )


def platform_check(platforms: tuple[bytes, ...], ppid: str) -> Check:
    """The condition that it is one of these machines."""
    names = [each.hex() for each in platforms[:4]]
    more = f" and {len(platforms) - 4} more" if len(platforms) > 4 else ""
    return Check(
        field="platforms",
        passed=bytes.fromhex(ppid) in platforms,
        found=ppid,
        rule=f"platforms: [{', '.join(names)}{more}]",
        problem="the platform is none of those that are accepted",
        remedy="if this machine is meant, add its PPID under platforms:",
    )


def status_json(accepted: TcbStatus | StatusUntil) -> str | dict[str, str]:
    """An accepted status as the policy file has it."""
    if isinstance(accepted, TcbStatus):
        return accepted.value
    return {"status": accepted.status.value, "until": accepted.until.isoformat()}
