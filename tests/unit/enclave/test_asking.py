"""Who hears nothing asks again, less and less often; what is answered stands."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from ensconce.enclave.asking import until_answered
from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError


def asking(answers: list[EnsconceError | str]) -> Callable[[], str]:
    """Gives these answers, one after the other."""
    left = iter(answers)

    def ask() -> str:
        answer = next(left)
        if isinstance(answer, EnsconceError):
            raise answer
        return answer

    return ask


def test_silence_is_asked_again_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    slept: list[float] = []
    silence = [UnreachableError("provisioning.unreachable", "nobody", remedy="start it") for _ in range(9)]
    assert until_answered(asking([*silence, "keys"]), chance=random.Random(1), sleep=slept.append) == "keys"
    for pause, longest in zip(slept, (1, 2, 4, 8, 16, 30, 30, 30, 30), strict=True):
        assert longest / 2 <= pause <= longest * 1.5
    assert len({pause / longest for pause, longest in zip(slept, (1, 2, 4, 8, 16), strict=False)}) == 5
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["again_in"] for each in told] == [round(pause, 1) for pause in slept]
    assert {(each["event"], each["check"], each["remedy"]) for each in told} == {
        ("unanswered", "provisioning.unreachable", "start it")
    }


@pytest.mark.parametrize(
    "answer",
    [
        RefusedError("policy.mr_enclave", "not this one"),
        EvidenceError("provisioning.server_certificate", "not the owner's server"),
        EnsconceError("provisioning.bug", "it failed inside"),
    ],
)
def test_an_answer_is_not_asked_for_again(answer: EnsconceError, capsys: pytest.CaptureFixture[str]) -> None:
    slept: list[float] = []
    with pytest.raises(type(answer), match=answer.check):
        until_answered(asking([answer]), sleep=slept.append)
    assert slept == []
    assert capsys.readouterr().out == ""


def test_a_signal_ends_the_waiting() -> None:
    def stopped(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until_answered(asking([UnreachableError("provisioning.rate", "too often")]), sleep=stopped)
