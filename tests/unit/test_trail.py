"""What is recorded of a judgement, and that nothing is where nobody listens."""

from __future__ import annotations

import threading

import pytest

from ensconce.errors import EvidenceError
from ensconce.trail import Held, exhibit, held, recorded, recording, step


def judge(name: str = "outer") -> None:
    with step(name):
        held("a.check", "label", found="x", rule="y", end=7)
        exhibit("thing", b"bytes")


def test_without_a_recorder_nothing_is_kept() -> None:
    judge()
    assert not recording()
    with recorded() as trail:
        pass
    judge()
    assert (trail.steps, trail.exhibits) == ([], {})


def test_a_step_that_came_to_its_end_passed() -> None:
    with recorded() as trail:
        judge()
    (only,) = trail.steps
    assert (only.name, only.state) == ("outer", "passed")
    assert only.held == [Held("a.check", "label", "x", "y", 7)]
    assert trail.exhibits == {"thing": b"bytes"}


@pytest.mark.parametrize("error", [EvidenceError("a", "b"), ValueError(), KeyboardInterrupt()])
def test_a_step_that_raised_anything_failed(error: BaseException) -> None:
    with recorded() as trail:
        with pytest.raises(type(error)), step("one"):  # noqa: PT012
            held("a.check", "label", found="x", rule="y")
            raise error
        held("outside", "of every step", found="x", rule="y")
    (only,) = trail.steps
    assert (only.state, len(only.held)) == ("failed", 1)


def test_a_step_within_another_is_the_others_to_sum_up() -> None:
    with recorded() as trail, step("outer"):
        judge("inner")
        held("b.check", "label", found="x", rule="y")
    (only,) = trail.steps
    assert [each.check for each in only.held] == ["b.check"]
    assert trail.exhibits == {}


def test_an_inner_failure_is_the_outers() -> None:
    with recorded() as trail, pytest.raises(ValueError), step("outer"), step("inner"):
        raise ValueError
    assert [(each.name, each.state) for each in trail.steps] == [("outer", "failed")]


def test_a_step_goes_on_where_it_ended_and_may_yet_fail() -> None:
    with recorded() as trail:
        judge("root")
        with pytest.raises(ValueError), step("root"):  # noqa: PT012
            held("b.check", "label", found="x", rule="y")
            raise ValueError
        judge("next")
    assert [(each.name, each.state, len(each.held)) for each in trail.steps] == [
        ("root", "failed", 2),
        ("next", "passed", 1),
    ]


def test_other_threads_are_not_recorded() -> None:
    with recorded() as trail:
        thread = threading.Thread(target=judge)
        thread.start()
        thread.join()
    assert trail.steps == []


def test_long_values_are_cut() -> None:
    with recorded() as trail, step("one"):
        held("a.check", "label", found="x" * 5000, rule="y" * 5000)
    assert (len(trail.steps[0].held[0].found), len(trail.steps[0].held[0].rule)) == (1000, 1000)
