"""The verification report: what was judged of the replica behind an address, step by step, and until when it is good.

Steps are what the judging code recorded (:mod:`ensconce.trail`); nothing is judged here. ``report_text`` and
``report_html`` show it to people, :meth:`Report.to_json_object` to programs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.serialization import Encoding

from ensconce import __version__
from ensconce.addresses import Address
from ensconce.appraisal.advisories import Advisory, advisories_of, meaning_of
from ensconce.appraisal.bundle import CollateralBundle
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.pck import chain_in
from ensconce.appraisal.policy import Acceptance, Policy
from ensconce.appraisal.published import PublishedEnclave
from ensconce.appraisal.root import claimed_root
from ensconce.client.leaf import Accepted
from ensconce.client.published import Publication
from ensconce.client.service import Service
from ensconce.errors import EnsconceError, EvidenceError, IntegrityError, RefusedError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.times import utc_text
from ensconce.trail import Held, Trail, recorded

__all__ = ["FORMAT", "STEPS", "Report", "ReportedStep", "State", "examine"]

FORMAT: Final = "ensconce-verification/1"
"""What ``report`` is in JSON; members may be added without a new number."""

STEPS: Final[Mapping[str, str]] = {
    "connection": "The address is reached",
    "tls": "TLS ends at whoever has the certificate's key",
    "evidence": "The certificate carries a quote about its own key",
    "certificate": "The certificate is in date, for this name, and from the owner's authority",
    "claims": "The quote claims an accepted root and no debug mode, and its certificates are signed",
    "collateral": "The vendor's collateral comes from the client's own source",
    "root": "The quote has a form that is known, and leads to exactly this root",
    "documents": "The collateral is for this platform, and everything is in date",
    "quote": "Every signature holds, nothing is revoked, and the quoting enclave is the vendor's",
    "tcb": "The platform's TCB status and security advisories",
    "published": "A publisher whom we trust stands by this code, in the newest list that we know of",
    "policy": "The policy accepts the platform",
    "identity": "The policy names this code",
    "freshness": "A fresh quote over our nonce and this very channel",
}
"""Names of the steps that a verification has, in their order, and what each is about. ``freshness`` only if asked."""

_NAMES: Final = "Where its certificates say Intel, it is because the format demands that name."

State = Literal["passed", "failed", "not reached", "not asked"]


@dataclass(frozen=True, kw_only=True)
class ReportedStep:
    """A step as it is shown.

    Attributes:
        name: in :data:`STEPS`.
        state: passed, failed, not reached, or not asked.
        held: what was compared and held, also in a step that failed later on.
        error: what it failed with.
    """

    name: str
    state: State
    held: tuple[Held, ...] = ()
    error: EnsconceError | None = None

    @property
    def title(self) -> str:
        """What it is about."""
        return STEPS[self.name]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of one verification. Made by :func:`examine`.

    Attributes:
        at: when, seconds since 1970.
        target: which address.
        server_name: which TLS name was asked for.
        policy: what it was judged by; None where what is published alone decides.
        steps: all of :data:`STEPS`, in their order.
        accepted: why it was accepted; None where it was not.
        error: why not.
        certificate: the one that was shown, DER, if it came to that.
        quote: the one in it; nothing about it is known but by the steps.
        fresh_quote: the one that was made for this connection.
        collateral: what the quote was judged with.
        publication: the list that was asked for, if it was believed.
        published: the enclave in it.
    """

    at: int
    target: Address
    server_name: str
    policy: Policy | None
    steps: tuple[ReportedStep, ...]
    accepted: Accepted | None
    error: EnsconceError | None
    certificate: bytes | None
    quote: bytes | None
    fresh_quote: bytes | None
    collateral: Collateral | None
    publication: Publication | None
    published: PublishedEnclave | None

    @property
    def tool(self) -> str:
        """What made it."""
        return f"ensconce {__version__}"

    @property
    def outcome(self) -> Literal["accepted", "refused", "unreachable"]:
        """In a word; unreachable is also a replica that cannot be judged for want of collateral."""
        if self.error is None:
            return "accepted"
        return "unreachable" if isinstance(self.error, UnreachableError) else "refused"

    @property
    def exit_status(self) -> int:
        """0 accepted, 3 not genuine, 4 refused by the policy, 5 unreachable, 6 what the client keeps is damaged."""
        return 0 if self.error is None else self.error.exit_status

    @property
    def acceptance(self) -> Acceptance | None:
        """The policy's yes."""
        return None if self.accepted is None else self.accepted.acceptance

    @property
    def root(self) -> str | None:
        """The root that the evidence hangs from; where it was refused, the one that it claims. None: unknown."""
        if self.acceptance is not None:
            return self.acceptance.verdict.root
        try:
            return None if self.quote is None else claimed_root(parse_quote(self.quote))
        except EvidenceError:
            return None

    @property
    def simulated(self) -> bool | None:
        """Whether no hardware stands behind the evidence; None where there is none."""
        return None if self.root is None else self.root != "intel"

    @property
    def warning(self) -> str | None:
        """What must be read before anything else."""
        if not self.simulated:
            return None
        if self.accepted is None:
            return f"SIMULATED: this evidence claims a simulated platform; no hardware protects it. {_NAMES}"
        return f"SIMULATED: no hardware protects this replica. {_NAMES}"

    @property
    def ends(self) -> tuple[tuple[int, str], ...]:
        """When what held ceases to hold, soonest first: seconds since 1970, and what it is."""
        ends = {
            (held.end, f"{held.label} [{held.check}]")
            for each in self.steps
            for held in each.held
            if held.end is not None
        }
        return tuple(sorted(ends))

    @property
    def valid_until(self) -> int | None:
        """Until when the answer is good, seconds since 1970; None where there is none."""
        return min(self.accepted.valid_until, self.ends[0][0]) if self.accepted is not None else None

    @property
    def advisories(self) -> tuple[Advisory, ...]:
        """The vendor's security advisories that apply to the platform, if it was judged."""
        return () if self.acceptance is None else advisories_of(self.acceptance.verdict.advisory_ids)

    @property
    def root_pem(self) -> bytes | None:
        """The simulated root's certificate, that whoever repeats the verification has to be given."""
        if self.quote is None or not self.simulated:
            return None
        return chain_in(parse_quote(self.quote))[-1].public_bytes(Encoding.PEM)

    @property
    def collateral_json(self) -> str | None:
        """The collateral as a bundle."""
        return None if self.collateral is None else CollateralBundle((self.collateral,)).to_json()

    def to_json_object(self) -> dict[str, Any]:
        """The report for programs, see ``docs/reference/verification-report.md``."""
        acceptance = self.acceptance
        value: dict[str, Any] = {
            "report": FORMAT,
            "outcome": self.outcome,
            "accepted": self.error is None,
            "exit_status": self.exit_status,
            "simulated": self.simulated,
            "warning": self.warning,
            "at": utc_text(self.at),
            "tool": self.tool,
            "target": str(self.target),
            "server_name": self.server_name,
            "policy_sha256": self.policy and self.policy.sha256,
            "policy_serial": self.policy and self.policy.serial,
            "policy_service": self.policy and self.policy.service,
            "published": self.publication and self.publication.to_json_object(self.published),
            "replica": self.accepted and self.accepted.replica_id,
            "identity": acceptance and acceptance.identity.name,
            "certificate_not_after": self.accepted
            and utc_text(self.accepted.certificate.not_valid_after_utc.timestamp()),
            "valid_until": None if self.valid_until is None else utc_text(self.valid_until),
            "ends": [{"until": utc_text(end), "what": what} for end, what in self.ends] if self.accepted else [],
            "tcb": None
            if acceptance is None
            else {
                "status": acceptance.verdict.status.value,
                "meaning": meaning_of(acceptance.verdict.status),
                "advisories": [{"id": a.id, "meaning": a.meaning, "url": a.url} for a in self.advisories],
            },
            "verdict": acceptance and acceptance.verdict.to_json_object(),
            "steps": [_step_value(each) for each in self.steps],
            "evidence": {
                "quote_sha256": None if self.quote is None else hashlib.sha256(self.quote).hexdigest(),
                "quote": _base64(self.quote),
                "fresh_quote": _base64(self.fresh_quote),
                "certificate": _base64(self.certificate),
                "root": None if self.root_pem is None else self.root_pem.decode(),
                "collateral": None if self.collateral is None else self.collateral.to_object(),
            },
        }
        return value if self.error is None else value | {"error": self.error.fields()}


def examine(service: Service, target: Address) -> Report:
    """Connect to a replica, have it prove itself, and say what was compared; nothing is sent to it.

    Args:
        service: what is asked of it.
        target: where it is.

    Raises:
        InputError: what is asked cannot be asked; no judgement was made.
    """
    at = service.appraiser.now()
    accepted, error = None, None
    with recorded() as trail:
        try:
            with service.attest(target, "h2") as replica:
                accepted = replica.accepted
        except (EvidenceError, RefusedError, UnreachableError, IntegrityError) as refusal:
            error = refusal
    shown: dict[str, Any] = trail.exhibits
    return Report(
        at=at,
        target=target,
        server_name=service.server_name,
        policy=None if service.appraiser.by_published_alone else service.appraiser.policy,
        steps=_steps(
            trail,
            error,
            {"published": service.appraiser.published is not None, "freshness": service.freshness},
        ),
        accepted=accepted,
        error=error,
        certificate=shown.get("certificate"),
        quote=shown.get("quote"),
        fresh_quote=shown.get("fresh_quote"),
        collateral=shown.get("collateral"),
        publication=shown.get("publication"),
        published=shown.get("published_enclave"),
    )


def _steps(trail: Trail, error: EnsconceError | None, asked: Mapping[str, bool]) -> tuple[ReportedStep, ...]:
    taken = {each.name: each for each in trail.steps}
    steps = []
    for name in STEPS:
        step = taken.get(name)
        if step is None:
            state: State = "not reached" if asked.get(name, True) else "not asked"
            steps.append(ReportedStep(name=name, state=state))
        elif step.state == "passed":
            steps.append(ReportedStep(name=name, state="passed", held=tuple(step.held)))
        else:
            steps.append(ReportedStep(name=name, state="failed", held=tuple(step.held), error=error))
    return tuple(steps)


def _step_value(step: ReportedStep) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": step.name,
        "title": step.title,
        "state": step.state,
        "held": [
            {
                "check": each.check,
                "label": each.label,
                "found": each.found,
                "rule": each.rule,
                "until": None if each.end is None else utc_text(each.end),
            }
            for each in step.held
        ],
    }
    return value if step.error is None else value | {"error": step.error.fields()}


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
