"""Policies: which verdicts are accepted, as whom, and what they may receive.

A policy is a value. It names roots, TCB statuses and identities; whatever it does not name is refused, and a policy
that names no root, no status or no identity is an error rather than a policy for nobody or for anybody. Each of its
conditions is a :class:`~ensconce.appraisal.policy_check.Check`. Judging a verdict gives an :class:`Acceptance`, which
nothing else can make, so that code which needs one cannot forget to ask.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any

from ensconce.addresses import check_domain
from ensconce.appraisal.policy_check import Check, expect_size, invalid, refuse_twice
from ensconce.appraisal.policy_identity import Identity, WireV1
from ensconce.appraisal.policy_owners import Owners
from ensconce.appraisal.policy_sgx import AttributeMasks, sgx_checks
from ensconce.appraisal.policy_tcb import (
    Advisories,
    StatusUntil,
    expect_no_end,
    floor_check,
    platform_check,
    status_check,
    status_json,
)
from ensconce.appraisal.policy_tdx import TrustDomain, td_checks
from ensconce.appraisal.root import parse_root_name
from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.quote import Tee
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.trail import step

__all__ = [
    "MAX_SERIAL",
    "Acceptance",
    "Advisories",
    "AttributeMasks",
    "Identity",
    "Owners",
    "Policy",
    "StatusUntil",
    "TrustDomain",
    "WireV1",
]

MAX_SERIAL = 2**31 - 1

_MINT = object()


@dataclass(frozen=True)
class Acceptance:
    """A policy's yes to one verdict. Only :meth:`Policy.judge` makes it.

    Attributes:
        identity: as whom it was accepted.
        verdict: what was accepted.
        policy_sha256: which policy said yes, hexadecimal.
        valid_until: when it ceases to hold, seconds since 1970: with the verdict, or sooner with an exception of the
            policy.
    """

    mint: InitVar[object]
    identity: Identity
    verdict: Verdict
    policy_sha256: str
    valid_until: int

    def __post_init__(self, mint: object) -> None:
        if mint is not _MINT:
            raise TypeError("acceptances come from Policy.judge only")

    @property
    def report(self) -> SgxReport | TdReport:
        """The report of the enclave or the trust domain, the body of the verified quote."""
        return self.verdict.report

    def until(self, end: int) -> Acceptance:
        """The same yes, for less long where it is also one to something that ends."""
        return replace(self, mint=_MINT, valid_until=min(self.valid_until, end))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is accepted. The order of identities counts: the first that fits is the one that is accepted.

    Attributes:
        roots: names of roots, ``intel`` or ``simulated:<sha256>``.
        tcb_statuses: statuses of the platform that are accepted: UpToDate, and exceptions each with an end.
        identities: code that is accepted.
        serial: number of this version of the policy; the one that follows has a higher one.
        service: the service that it is for, a domain; without, it does not say.
        owners: who must sign it and the one that follows; without, the deployment's own owner.
        advisories: security advisories that a platform may have; without, any.
        min_tcb_evaluation_data_number: lowest number of the TCB info and of the QE identity; without, any.
        platforms: PPIDs of the machines that are accepted, 16 bytes each; without, any.

    Raises:
        InputError: it names nobody where it must name somebody, names something twice, or a value is out of bounds.
    """

    roots: tuple[str, ...]
    tcb_statuses: tuple[TcbStatus | StatusUntil, ...]
    identities: tuple[Identity, ...]
    serial: int = 1
    service: str | None = None
    owners: Owners | None = None
    advisories: Advisories | None = None
    min_tcb_evaluation_data_number: int | None = None
    platforms: tuple[bytes, ...] | None = None

    def __post_init__(self) -> None:
        for field, remedy in (
            ("roots", "name the root that evidence must hang from: intel, or simulated:<sha256>"),
            ("tcb_statuses", "name at least UpToDate"),
            ("identities", "name the code that is accepted"),
            ("platforms", "name the machines that are accepted, or remove platforms:"),
        ):
            if getattr(self, field) == ():
                raise InputError(
                    f"policy.{field}",
                    f"the policy names no {field.replace('_', ' ')}",
                    rule="a policy that names nobody is an error, never anyone",
                    remedy=remedy,
                )
        for status in self.tcb_statuses:
            if isinstance(status, TcbStatus):
                expect_no_end(status)
        if not 1 <= self.serial <= MAX_SERIAL:
            raise invalid("serial", str(self.serial), f"1 to {MAX_SERIAL}")
        lowest = self.min_tcb_evaluation_data_number
        if lowest is not None and not 1 <= lowest <= MAX_SERIAL:
            raise invalid("min_tcb_evaluation_data_number", str(lowest), f"1 to {MAX_SERIAL}")
        if self.service is not None:
            check_domain(self.service)
        for root in self.roots:
            parse_root_name(root)
        for ppid in self.platforms or ():
            expect_size("platforms", ppid, 16)
        self._refuse_duplicates()

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256, hexadecimal, of the policy as canonical JSON: the same however its file is laid out."""
        return hashlib.sha256(
            json.dumps(self.to_json_object(), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    @property
    def wire_v1(self) -> bool:
        """Whether any identity may ask over Gramine's own protocol."""
        return any(identity.wire_v1 is not None for identity in self.identities)

    def with_identity(self, identity: Identity) -> Policy:
        """This policy with one more identity, the last; or with it in the place of the one of its name."""
        if all(each.name != identity.name for each in self.identities):
            return replace(self, identities=(*self.identities, identity))
        return replace(
            self, identities=tuple(identity if each.name == identity.name else each for each in self.identities)
        )

    def to_json_object(self) -> dict[str, Any]:
        """The policy as its file has it; what has no order is sorted, what is not given is left out."""
        statuses = sorted((status_json(each) for each in self.tcb_statuses), key=str)
        value: dict[str, Any] = {"version": 1, "serial": self.serial}
        if self.service is not None:
            value["service"] = self.service
        if self.owners is not None:
            value["owners"] = self.owners.to_json_object()
        value |= {"roots": sorted(self.roots), "tcb_statuses": statuses}
        if self.advisories is not None:
            value["advisories"] = self.advisories.to_json_object()
        if self.min_tcb_evaluation_data_number is not None:
            value["min_tcb_evaluation_data_number"] = self.min_tcb_evaluation_data_number
        if self.platforms is not None:
            value["platforms"] = sorted(ppid.hex() for ppid in self.platforms)
        return value | {"identities": [identity.to_json_object() for identity in self.identities]}

    def refuse_root(self, found: str) -> RefusedError:
        """The refusal of evidence that hangs, or claims to hang, from a root that is not accepted."""
        return self._root_check(found, passed=False).refusal()

    def refuse_debug(self, report: SgxReport | TdReport, among: Sequence[Identity] | None = None) -> None:
        """Refuse a debug enclave that none of the identities accepts as one.

        Args:
            report: may be an unverified claim: nobody gains by claiming to be a debug enclave.
            among: the identities in question; all of them when absent.

        Raises:
            RefusedError: ``policy.debug``.
        """
        debug_check(report, self.identities if among is None else among).expect()

    def platform_checks(self, verdict: Verdict) -> Iterator[Check]:
        """Every condition that does not depend on which identity it is, in the order in which they are judged."""
        # Type and name must agree, so that neither alone can turn simulated evidence into genuine evidence.
        genuine = type(verdict) is GenuineVerdict and verdict.root == "intel"
        simulated = type(verdict) is SimulatedVerdict and verdict.root.startswith("simulated:")
        yield self._root_check(verdict.root, passed=(genuine or simulated) and verdict.root in self.roots)
        kinds = sorted({identity.tee for identity in self.identities})
        yield Check(
            field="tee",
            passed=verdict.tee in kinds and (verdict.tee == "sgx") is isinstance(verdict.report, SgxReport),
            found=verdict.tee,
            rule=f"identities: {' and '.join(kinds)} alone",
            problem="this kind of environment is not accepted",
            remedy="name an identity of this kind, or use the kind that the policy names",
        )
        yield status_check(self.tcb_statuses, verdict)
        if self.advisories is not None:
            yield self.advisories.check(verdict.advisory_ids)
        if self.min_tcb_evaluation_data_number is not None:
            yield floor_check(self.min_tcb_evaluation_data_number, verdict)
        if self.platforms is not None:
            yield platform_check(self.platforms, verdict.ppid)
        report = verdict.report
        yield from sgx_checks(report) if isinstance(report, SgxReport) else td_checks(report)

    def judge(self, verdict: Verdict) -> Acceptance:
        """Accept a verdict as one of the identities, or refuse it.

        Order: root, kind, TCB status, advisories, evaluation number, platform, attributes, debug, identity. The day
        that exceptions are held against is the verdict's own; whether that time is now is the caller's matter.

        Raises:
            RefusedError: ``policy.root``, ``policy.tee``, ``policy.tcb_status``, ``policy.advisories``,
                ``policy.min_tcb_evaluation_data_number``, ``policy.platforms``, ``policy.attributes``,
                ``policy.td_attributes``, ``policy.mr_signer_seam``, ``policy.mr_service_td``, ``policy.debug``, or the
                field of the nearest identity that does not fit, such as ``policy.mr_enclave``.
        """
        end = verdict.valid_until
        with step("policy"):
            for check in self.platform_checks(verdict):
                check.expect()
                end = end if check.end is None else min(end, check.end)
        with step("identity"):
            report = verdict.report
            kind = [identity for identity in self.identities if identity.tee == verdict.tee]
            fitting = self._fitting(verdict.tee, report)
            self.refuse_debug(report, fitting or kind)
            for identity in fitting:
                if identity.debug or not report.debug:
                    for check in identity.checks(report):
                        check.expect()
                    return Acceptance(_MINT, identity, verdict, self.sha256, end)
            raise _nearest_miss(kind, report)

    def claimed(self, tee: Tee, report: SgxReport | TdReport) -> Identity | None:
        """The identity that :meth:`judge` would accept, were this unverified claim true; None where it would refuse.

        Good for refusing early what would be refused in any case, and for nothing else.
        """
        return next((each for each in self._fitting(tee, report) if each.debug or not report.debug), None)

    def _fitting(self, tee: Tee, report: SgxReport | TdReport) -> list[Identity]:
        kind = (identity for identity in self.identities if identity.tee == tee)
        return [identity for identity in kind if all(check.passed for check in identity.checks(report))]

    def _root_check(self, found: str, passed: bool) -> Check:
        simulated = found != "intel"
        return Check(
            field="root",
            passed=passed,
            found=found,
            rule=f"roots: [{', '.join(self.roots)}]",
            problem="the evidence is of a simulated platform that is not accepted"
            if simulated
            else "the root is not accepted",
            remedy="no hardware protects a simulated enclave; for a trial, name exactly it: policy's roots:, or --root"
            if simulated
            else "name intel to accept real hardware: policy's roots:, or --root",
        )

    def _refuse_duplicates(self) -> None:
        refuse_twice(self.roots, "roots")
        statuses = [each if isinstance(each, TcbStatus) else each.status for each in self.tcb_statuses]
        refuse_twice([status.value for status in statuses], "tcb_statuses")
        refuse_twice([ppid.hex() for ppid in self.platforms or ()], "platforms")
        refuse_twice([identity.name for identity in self.identities], "identities: name")
        refuse_twice([i.mr_enclave.hex() for i in self.identities if i.mr_enclave], "identities: mr_enclave")
        domains = [json.dumps(i.tdx.to_json_object()) for i in self.identities if i.tdx]
        refuse_twice(domains, "identities: tdx")


def debug_check(report: SgxReport | TdReport, among: Sequence[Identity]) -> Check:
    """The condition that it is no debug enclave, or that one of these identities accepts it as one."""
    return Check(
        field="debug",
        passed=not report.debug or any(identity.debug for identity in among),
        found="DEBUG is set" if report.debug else "DEBUG is clear",
        rule=f"debug: false (identity {', '.join(repr(identity.name) for identity in among)})",
        problem="this is a debug enclave: the host can read and write its memory",
        remedy="build, sign and start the enclave without debug",
    )


def _nearest_miss(identities: Sequence[Identity], report: SgxReport | TdReport) -> RefusedError:
    nearest = max(identities, key=lambda identity: sum(check.passed for check in identity.checks(report)))
    miss = next(check for check in nearest.checks(report) if not check.passed)
    others = len(identities) - 1
    more = f", and {others} other identities" if others > 1 else ", and one other identity" if others else ""
    return miss.refusal().altered(rule=f"{miss.rule} (identity {nearest.name!r}{more})")
