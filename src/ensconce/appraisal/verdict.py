"""Verdicts: what is known once a quote has been verified.

A verdict says that evidence is genuine and how up to date its platform is. It does not say that anybody should accept
it: that is for a policy. Only :func:`ensconce.appraisal.dcap.verify_quote` makes verdicts, and evidence of a simulated
platform gets a class of its own, so that neither can stand in for the other by accident.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from enum import StrEnum
from typing import Any

from ensconce.evidence.quote import Tee
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.times import utc_text

__all__ = ["GenuineVerdict", "SimulatedVerdict", "TcbStatus", "Verdict"]

_MINT = object()


class TcbStatus(StrEnum):
    """How the platform compares with what its vendor wants it to be, in Intel's words (PCS API, TCB info).

    Revoked is missing on purpose: a quote from a revoked platform is refused, and has no verdict.
    """

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verified quote says, and about which platform.

    Attributes:
        tee: kind of trusted execution environment.
        root: name of the root it hangs from, ``intel`` or ``simulated:<sha256 of the root certificate>``.
        status: of the platform, its quoting enclave and, for TDX, its module: the worst of them.
        advisory_ids: Intel security advisories that apply at this status.
        report: the body of the quote.
        fmspc: kind of platform, 12 hexadecimal digits.
        pce_id: of the provisioning certification enclave, 4 hexadecimal digits.
        ppid: the platform's own id, 32 hexadecimal digits.
        tcb_date: date of the TCB level that matched, seconds since 1970.
        tcb_evaluation_data_number: of the TCB info; it grows with every TCB recovery.
        qe_evaluation_data_number: the same of the quoting enclave's identity.
        valid_until: earliest expiry of all collateral and certificates involved, seconds since 1970.
        at: the time for which all this was found, seconds since 1970.
    """

    mint: InitVar[object]
    tee: Tee
    root: str
    status: TcbStatus
    advisory_ids: tuple[str, ...]
    report: SgxReport | TdReport
    fmspc: str
    pce_id: str
    ppid: str
    tcb_date: int
    tcb_evaluation_data_number: int
    qe_evaluation_data_number: int
    valid_until: int
    at: int

    def __post_init__(self, mint: object) -> None:
        if mint is not _MINT or type(self) not in (GenuineVerdict, SimulatedVerdict):
            raise TypeError("verdicts come from verify_quote only")

    @property
    def debug(self) -> bool:
        """The host can read the memory of what was measured."""
        return self.report.debug

    def to_json_object(self) -> dict[str, Any]:
        """The verdict for ``--json``: bytes in lower-case hexadecimal, times as RFC 3339 in UTC.

        ``mr_enclave``, ``mr_signer``, ``isv_prod_id`` and ``isv_svn`` are ``None`` for TDX, ``mr_td`` is for SGX.
        """
        either = ("mr_enclave", "mr_signer", "isv_prod_id", "isv_svn", "mr_td")
        value: dict[str, Any] = {
            "status": self.status.value,
            "advisory_ids": list(self.advisory_ids),
            "tee": self.tee,
            "root": self.root,
            **dict.fromkeys(either),
            **self.report.to_json_object(),
        }
        value |= {name: getattr(self, name) for name in ("fmspc", "pce_id", "ppid")}
        value |= {name: getattr(self, name) for name in ("tcb_evaluation_data_number", "qe_evaluation_data_number")}
        return value | {name: utc_text(getattr(self, name)) for name in ("tcb_date", "at", "valid_until")}


@dataclass(frozen=True, kw_only=True)
class GenuineVerdict(Verdict):
    """A verdict on evidence that hangs from Intel's root: real hardware made it."""


@dataclass(frozen=True, kw_only=True)
class SimulatedVerdict(Verdict):
    """A verdict on evidence that hangs from any other root: no hardware protects what it describes."""
