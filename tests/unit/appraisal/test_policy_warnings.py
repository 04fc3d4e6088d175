from __future__ import annotations

import dataclasses
import datetime

import pytest

from ensconce.appraisal.policy import Identity, Owners, Policy, StatusUntil, TrustDomain, WireV1
from ensconce.appraisal.policy_warnings import warnings_about
from ensconce.appraisal.verdict import TcbStatus

NOW = 1_790_000_000  # 2026-09-21
CODE = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))
SOUND = Policy(roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(CODE,))


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ("2026-09-20", "ended on 2026-09-20"),
        ("2026-09-21", "ends today"),
        ("2026-09-22", "ends in 1 day, on 2026-09-22"),
        ("2026-10-21", "ends in 30 days, on 2026-10-21"),
        ("2026-10-22", None),
    ],
)
def test_exceptions_that_end(until: str, words: str | None) -> None:
    exception = StatusUntil(TcbStatus.OUT_OF_DATE, datetime.date.fromisoformat(until))
    warnings = warnings_about(dataclasses.replace(SOUND, tcb_statuses=(exception,)), NOW)
    if words is None:
        assert warnings == ()
    else:
        assert warnings == (f"tcb_statuses: the exception for OutOfDate {words}",)


def test_a_sound_policy_needs_none() -> None:
    assert warnings_about(SOUND, NOW) == ()
    full = TrustDomain(mr_td=bytes(48), rtmr0=bytes(48), rtmr1=bytes(48), rtmr2=bytes(48), rtmr3=bytes(48))
    assert warnings_about(SOUND.with_identity(Identity(name="guest", tdx=full)), NOW) == ()


def test_lines_that_promise_little() -> None:
    opted = dataclasses.replace(CODE, debug=True, wire_v1=WireV1(secret="model/digits/1", form="raw"))
    guest = Identity(name="guest", tdx=TrustDomain(mr_td=bytes(48), rtmr0=bytes(48)))
    policy = dataclasses.replace(SOUND, roots=("simulated:" + "0" * 64,), identities=(opted, guest))
    warnings = warnings_about(policy, NOW)
    for words in ("no hardware", "'code': the host of a debug", "Gramine's protocol", "rtmr1, rtmr2, rtmr3 not"):
        assert sum(words in warning for warning in warnings) == 1
    assert len(warnings) == 4


def test_what_its_signers_may_regret() -> None:
    owners = Owners(required=1, keys=("ed25519:" + "33" * 32,))
    (warning,) = warnings_about(dataclasses.replace(SOUND, owners=owners), NOW)
    assert "any service of these owners" in warning
    named = dataclasses.replace(SOUND, owners=owners, service="digits.example.test")
    assert warnings_about(named, NOW) == ()
    (warning,) = warnings_about(dataclasses.replace(named, serial=2**31 - 2), NOW)
    assert "serial" in warning
