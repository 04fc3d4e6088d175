"""What a platform's TCB comes to: one status and all advisories, out of dcap-qvl's claims."""

from __future__ import annotations

from typing import Any

from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EvidenceError

__all__ = ["converged"]

# Every status is a set of troubles, and both levels of a trust domain count: what troubles either troubles the domain.
_OUT_OF_DATE, _CONFIGURATION, _HARDENING = "out of date", "configuration", "hardening"
_TROUBLES = {
    TcbStatus.UP_TO_DATE: frozenset[str](),
    TcbStatus.SW_HARDENING_NEEDED: frozenset({_HARDENING}),
    TcbStatus.CONFIGURATION_NEEDED: frozenset({_CONFIGURATION}),
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: frozenset({_CONFIGURATION, _HARDENING}),
    TcbStatus.OUT_OF_DATE: frozenset({_OUT_OF_DATE}),
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: frozenset({_OUT_OF_DATE, _CONFIGURATION}),
}
_STATUSES = {troubles: status for status, troubles in _TROUBLES.items()}


def converged(claims: dict[str, Any]) -> tuple[TcbStatus, tuple[str, ...]]:
    """The status of platform, module and quoting enclave, and the advisories of all of them.

    dcap-qvl converges them as Intel's library does. Both leave one thing to their callers: a trust domain of version
    1.5 was launched at one TCB and runs at another, and where the one at launch was good, the status says nothing of
    the one it runs at now. Here that counts.

    Args:
        claims: of dcap-qvl, with ``tcb`` and ``platform``.

    Raises:
        EvidenceError: ``tcb.status``, one that is not known.
    """
    status, advisories = _status(claims["tcb"]["status"]), claims["tcb"]["advisory_ids"]
    current = claims["platform"].get("current_tcb_level")
    if current is not None:
        # The level's own advisories; those of quoting enclave and launch are in the others.
        advisories = [*advisories, *current.get("advisoryIDs", ())]
        # Where relaunching is advised, the launch was out of date and the present is not: that is in the status.
        if status in _TROUBLES:
            troubles = _TROUBLES[status] | _TROUBLES[_status(current["tcbStatus"])]
            status = _STATUSES[troubles - {_HARDENING} if _OUT_OF_DATE in troubles else troubles]
    return status, tuple(dict.fromkeys(map(str, advisories)))


def _status(name: str) -> TcbStatus:
    try:
        return TcbStatus(name)
    except ValueError:
        raise EvidenceError(
            "tcb.status",
            "the TCB status cannot stand",
            found=str(name)[:100],
            rule=", ".join(TcbStatus),
            remedy="fetch the collateral anew; if that says the same, do not use this machine",
        ) from None
