"""Policies: which verdicts are accepted, as whom, and what they may receive.

A policy is a value. It names roots, TCB statuses and identities; whatever it does not name is refused, and a policy
that names no root, no status or no identity is an error rather than a policy for nobody or for anybody. Judging a
verdict gives an :class:`Acceptance`, which nothing else can make, so that code which needs one cannot forget to ask.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

from ensconce.appraisal.root import parse_root_name
from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.report import Attributes, SgxReport, TdReport
from ensconce.servables import MODEL_NAME, receivable

__all__ = ["Acceptance", "Identity", "Policy"]

_MINT = object()

_MAX_NAME = 100
_RECEIVABLE = re.compile(receivable(MODEL_NAME))

_REQUIRED = Attributes.INIT | Attributes.MODE64BIT
# DEBUG is judged apart, by name. These change nothing that the measurement promises: control-flow enforcement, the
# exit notification, and key separation, whose host-chosen values must be zero (see _HOST_CHOSEN).
_HARMLESS = Attributes.DEBUG | Attributes.CET | Attributes.AEX_NOTIFY | Attributes.KSS
_HOST_CHOSEN = ("config_id", "config_svn", "isv_ext_prod_id", "isv_family_id")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Code that is accepted, and what it may receive.

    Either the measurement itself, or its signer with product id and lowest security version; giving more narrows it.

    Attributes:
        name: for people and logs, 1 to 100 printable characters.
        mr_enclave: MRENCLAVE, 32 bytes.
        mr_signer: MRSIGNER, SHA-256 of the signer's modulus, 32 bytes.
        isv_prod_id: ISVPRODID, 16 bits.
        min_isv_svn: lowest ISVSVN, 16 bits.
        debug: accept it as a debug enclave too, whose memory the host can read and write.
        receives: what it may be given, each ``model/<name>``, which means every live version of that model.

    Raises:
        InputError: a field is out of its bounds, or the fields name no code.
    """

    name: str
    mr_enclave: bytes | None = None
    mr_signer: bytes | None = None
    isv_prod_id: int | None = None
    min_isv_svn: int | None = None
    debug: bool = False
    receives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _MAX_NAME or not self.name.isprintable() or self.name != self.name.strip():
            raise _invalid("name", self.name, "1 to 100 printable characters, no blank at either end")
        for field, value in (("mr_enclave", self.mr_enclave), ("mr_signer", self.mr_signer)):
            if value is not None and len(value) != 32:
                raise _invalid(f"{self.name}: {field}", f"{len(value)} bytes", "32 bytes")
        for field, number in (("isv_prod_id", self.isv_prod_id), ("min_isv_svn", self.min_isv_svn)):
            if number is not None and not 0 <= number <= 0xFFFF:
                raise _invalid(f"{self.name}: {field}", str(number), "0 to 65535")
        if self.mr_enclave is None and None in (self.mr_signer, self.isv_prod_id, self.min_isv_svn):
            given = [f for f in ("mr_signer", "isv_prod_id", "min_isv_svn") if getattr(self, f) is not None]
            raise InputError(
                "policy.identity",
                f"identity {self.name!r} does not say which code it is",
                found=", ".join(given) or "no measurement and no signer",
                rule="mr_enclave, or mr_signer with isv_prod_id and min_isv_svn",
                remedy="add the measurement that `ensconce enclave` printed",
            )
        for item in self.receives:
            if not _RECEIVABLE.fullmatch(item):
                raise _invalid(f"{self.name}: receives", item, "model/<name>, without a version")
        _refuse_twice(self.receives, f"{self.name}: receives")

    def may_receive(self, key_id: str) -> bool:
        """Whether a key of this id, ``model/<name>/<version>``, may be given to it."""
        return key_id.rpartition("/")[0] in self.receives

    def to_json_object(self) -> dict[str, Any]:
        """The identity as the policy file has it, fields in a fixed order, absent ones left out."""
        value: dict[str, Any] = {"name": self.name}
        if self.mr_enclave is not None:
            value["mr_enclave"] = self.mr_enclave.hex()
        if self.mr_signer is not None:
            value["mr_signer"] = self.mr_signer.hex()
        if self.isv_prod_id is not None:
            value["isv_prod_id"] = self.isv_prod_id
        if self.min_isv_svn is not None:
            value["min_isv_svn"] = self.min_isv_svn
        return value | {"debug": self.debug, "receives": list(self.receives)}

    def _checks(self, report: SgxReport) -> Iterator[tuple[str, bool, str, str]]:
        """One (field, fits, found, rule) for each field that this identity gives."""
        if self.mr_signer is not None:
            yield "mr_signer", report.mr_signer == self.mr_signer, report.mr_signer.hex(), self.mr_signer.hex()
        if self.isv_prod_id is not None:
            yield "isv_prod_id", report.isv_prod_id == self.isv_prod_id, str(report.isv_prod_id), str(self.isv_prod_id)
        if self.min_isv_svn is not None:
            yield "min_isv_svn", report.isv_svn >= self.min_isv_svn, str(report.isv_svn), str(self.min_isv_svn)
        if self.mr_enclave is not None:
            yield "mr_enclave", report.mr_enclave == self.mr_enclave, report.mr_enclave.hex(), self.mr_enclave.hex()


@dataclass(frozen=True)
class Acceptance:
    """A policy's yes to one verdict. Only :meth:`Policy.judge` makes it.

    Attributes:
        identity: as whom it was accepted.
        verdict: what was accepted.
        policy_sha256: which policy said yes, hexadecimal.
    """

    mint: InitVar[object]
    identity: Identity
    verdict: Verdict
    policy_sha256: str

    def __post_init__(self, mint: object) -> None:
        if mint is not _MINT:
            raise TypeError("acceptances come from Policy.judge only")

    @property
    def report(self) -> SgxReport:
        """The enclave's report, the body of the verified quote."""
        assert isinstance(self.verdict.report, SgxReport)  # judge() accepts nothing else
        return self.verdict.report


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is accepted. The order of identities counts: the first that fits is the one that is accepted.

    Attributes:
        roots: names of roots, ``intel`` or ``simulated:<sha256>``.
        tcb_statuses: statuses of the platform that are accepted, each by name.
        identities: code that is accepted.

    Raises:
        InputError: one of them is empty, or names something twice.
    """

    roots: tuple[str, ...]
    tcb_statuses: tuple[TcbStatus, ...]
    identities: tuple[Identity, ...]

    def __post_init__(self) -> None:
        for field, remedy in (
            ("roots", "name the root that evidence must hang from: intel, or simulated:<sha256>"),
            ("tcb_statuses", "name at least UpToDate"),
            ("identities", "name the code that is accepted"),
        ):
            if not getattr(self, field):
                raise InputError(
                    f"policy.{field}",
                    f"the policy names no {field.replace('_', ' ')}",
                    rule="a policy that names nobody is an error, never anyone",
                    remedy=remedy,
                )
        for root in self.roots:
            parse_root_name(root)
        _refuse_twice(self.roots, "roots")
        _refuse_twice([status.value for status in self.tcb_statuses], "tcb_statuses")
        _refuse_twice([identity.name for identity in self.identities], "identities: name")
        _refuse_twice([i.mr_enclave.hex() for i in self.identities if i.mr_enclave], "identities: mr_enclave")

    @property
    def sha256(self) -> str:
        """SHA-256, hexadecimal, of the policy as canonical JSON: the same however its file is laid out."""
        return hashlib.sha256(
            json.dumps(self.to_json_object(), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def to_json_object(self) -> dict[str, Any]:
        """The policy as its file has it; roots and statuses, whose order says nothing, are sorted."""
        return {
            "version": 1,
            "roots": sorted(self.roots),
            "tcb_statuses": sorted(status.value for status in self.tcb_statuses),
            "identities": [identity.to_json_object() for identity in self.identities],
        }

    def refuse_root(self, found: str) -> RefusedError:
        """The refusal of evidence that hangs, or claims to hang, from a root that is not accepted."""
        simulated = found != "intel"
        return _refused(
            "root",
            "the evidence is of a simulated platform that is not accepted" if simulated else "the root is not accepted",
            found,
            f"roots: [{', '.join(self.roots)}]",
            "no hardware protects a simulated enclave; for a trial, name exactly this root under roots:"
            if simulated
            else "name intel under roots: to accept real hardware",
        )

    def refuse_debug(self, report: SgxReport | TdReport, among: Sequence[Identity] | None = None) -> None:
        """Refuse a debug enclave that none of the identities accepts as one.

        Args:
            report: may be an unverified claim: nobody gains by claiming to be a debug enclave.
            among: the identities in question; all of them when absent.

        Raises:
            RefusedError: ``policy.debug``.
        """
        among = self.identities if among is None else among
        if report.debug and not any(identity.debug for identity in among):
            raise _refused(
                "debug",
                "this is a debug enclave: the host can read and write its memory",
                "DEBUG is set",
                f"debug: false (identity {', '.join(repr(identity.name) for identity in among)})",
                "build, sign and start the enclave without debug",
            )

    def judge(self, verdict: Verdict) -> Acceptance:
        """Accept a verdict as one of the identities, or refuse it.

        Order: root, kind, TCB status, attributes, debug, identity. The time at which the verdict holds is the
        caller's matter.

        Raises:
            RefusedError: ``policy.root``, ``policy.tee``, ``policy.tcb_status``, ``policy.attributes``,
                ``policy.debug``, or the field of the nearest identity that does not fit: ``policy.mr_enclave``,
                ``policy.mr_signer``, ``policy.isv_prod_id``, ``policy.min_isv_svn``.
        """
        # Type and name must agree, so that neither alone can turn simulated evidence into genuine evidence.
        genuine = type(verdict) is GenuineVerdict and verdict.root == "intel"
        simulated = type(verdict) is SimulatedVerdict and verdict.root.startswith("simulated:")
        if not (genuine or simulated) or verdict.root not in self.roots:
            raise self.refuse_root(verdict.root)
        report = verdict.report
        if verdict.tee != "sgx" or not isinstance(report, SgxReport):
            raise _refused("tee", "this kind of environment is not accepted", verdict.tee, "SGX enclaves", "use SGX")
        if verdict.status not in self.tcb_statuses:
            advisories = f" ({', '.join(verdict.advisory_ids)})" if verdict.advisory_ids else ""
            raise _refused(
                "tcb_status",
                "the platform's TCB status is not accepted",
                verdict.status.value + advisories,
                f"tcb_statuses: [{', '.join(self.tcb_statuses)}]",
                "update the platform's firmware, or accept this status by name under tcb_statuses:",
            )
        _check_attributes(report)
        fitting = [i for i in self.identities if all(fits for _, fits, _, _ in i._checks(report))]
        self.refuse_debug(report, fitting or self.identities)
        for identity in fitting:
            if identity.debug or not report.debug:
                return Acceptance(_MINT, identity, verdict, self.sha256)
        raise self._nearest_miss(report)

    def _nearest_miss(self, report: SgxReport) -> RefusedError:
        def passed(identity: Identity) -> int:
            return sum(fits for _, fits, _, _ in identity._checks(report))

        nearest = max(self.identities, key=passed)
        field, _, found, rule = next(check for check in nearest._checks(report) if not check[1])
        others = len(self.identities) - 1
        more = f", and {others} other identities" if others > 1 else ", and one other identity" if others else ""
        return _refused(
            field,
            "the policy names no such enclave",
            found,
            f"{field}: {rule} (identity {nearest.name!r}{more})",
            "if this is the code that you mean, add its measurement to the policy; otherwise something changed it",
        )


def _check_attributes(report: SgxReport) -> None:
    flags = report.attributes.flags
    rule = "INIT and MODE64BIT set, PROVISION_KEY and EINITTOKEN_KEY clear, reserved bits zero"
    if flags & _REQUIRED != _REQUIRED or flags & ~(_REQUIRED | _HARMLESS):
        raise _refused(
            "attributes",
            "the enclave has attributes that a server of models does not have",
            f"flags {flags:#018x}",
            rule,
            "build the enclave without access to provisioning or launch keys",
        )
    chosen = [name for name in _HOST_CHOSEN if getattr(report, name) not in (0, bytes(16), bytes(64))]
    if chosen:
        raise _refused(
            "attributes",
            "the enclave was started with values that its host chose and nobody measured",
            ", ".join(chosen),
            "config_id, config_svn, isv_ext_prod_id and isv_family_id are zero",
            "start the enclave without key separation and sharing (KSS)",
        )


def _refused(field: str, problem: str, found: str, rule: str, remedy: str) -> RefusedError:
    return RefusedError(f"policy.{field}", problem, found=found, rule=rule, remedy=remedy)


def _invalid(field: str, found: str, rule: str) -> InputError:
    return InputError("policy.value", f"wrong value in the policy, {field}", found=repr(found)[:120], rule=rule)


def _refuse_twice(values: Iterable[str], field: str) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise InputError(
                "policy.duplicate", f"named twice in the policy, {field}", found=value, remedy="keep one of them"
            )
