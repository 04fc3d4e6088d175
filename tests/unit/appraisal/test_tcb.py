from __future__ import annotations

from typing import Any

import pytest

from ensconce.appraisal.tcb import converged
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EvidenceError

UP, HARDENING, CONFIGURATION, BOTH, OUT, OUT_CONFIGURATION, RELAUNCH, RELAUNCH_CONFIGURATION = TcbStatus


def claims(status: str, *advisories: str, now: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"tcb": {"status": status, "advisory_ids": list(advisories)}, "platform": {"current_tcb_level": now}}


@pytest.mark.parametrize("status", TcbStatus)
def test_without_a_present_level_it_is_what_is_claimed(status: TcbStatus) -> None:
    assert converged(claims(status, "a", "b")) == (status, ("a", "b"))
    assert converged({"tcb": {"status": status, "advisory_ids": []}, "platform": {}}) == (status, ())


@pytest.mark.parametrize(
    ("launch", "now", "expected"),
    [
        (UP, UP, UP),
        (UP, OUT, OUT),
        (UP, CONFIGURATION, CONFIGURATION),
        (HARDENING, CONFIGURATION, BOTH),
        (HARDENING, OUT, OUT),
        (BOTH, OUT, OUT_CONFIGURATION),
        (OUT, CONFIGURATION, OUT_CONFIGURATION),
        (OUT_CONFIGURATION, HARDENING, OUT_CONFIGURATION),
        (RELAUNCH, UP, RELAUNCH),
        (RELAUNCH_CONFIGURATION, CONFIGURATION, RELAUNCH_CONFIGURATION),
    ],
)
def test_the_troubles_of_both_levels_count(launch: TcbStatus, now: TcbStatus, expected: TcbStatus) -> None:
    level = {"tcbStatus": now.value, "advisoryIDs": ["b", "c"]}
    assert converged(claims(launch, "a", "b", now=level)) == (expected, ("a", "b", "c"))
    assert converged(claims(launch, now={"tcbStatus": now.value})) == (expected, ())


@pytest.mark.parametrize("now", [None, {"tcbStatus": "Fine"}, {"tcbStatus": "Revoked"}])
def test_statuses_that_cannot_stand(now: dict[str, Any] | None) -> None:
    with pytest.raises(EvidenceError) as caught:
        converged(claims("UpToDate" if now else "Revoked", now=now))
    assert caught.value.check == "tcb.status"
