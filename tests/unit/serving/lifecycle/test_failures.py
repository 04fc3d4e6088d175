from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensconce.errors import InputError, IntegrityError
from ensconce.serving.engines import LoadError
from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import State
from ensconce.tfserving.refusal import Code, RequestError

INTERVAL = 60.0


def test_a_broken_version_takes_nothing_down(world: Any) -> None:
    world.want("m", 1)
    world.want("n", 5)
    world.loading.broken["m", 2] = [RequestError(Code.NOT_FOUND, "no graph")] * 9
    world.want("m", 2)
    for _ in range(7):
        world.now += INTERVAL
        world.lifecycle.settle()
    status = world.manager.status("m", 2)[0]
    assert (status.state, status.code, status.text) == (State.END, Code.NOT_FOUND, "no graph")
    assert world.manager.resolve("m").version == 1
    assert world.manager.resolve("n").version == 5
    assert world.failures("m") == [("m", 2, "no graph")]
    # Nor does it stay in the way of the one that mends it.
    world.want("m", 3)
    assert world.manager.models() == (("m", 3), ("n", 5))
    assert world.failures("m", "n") == []


def test_what_was_is_no_answer_to_what_is_wanted_now(world: Any) -> None:
    world.want("m", 1)
    world.lifecycle.want("m", {2: Path("/models/m/2")})
    assert world.failures("m") is None
    world.lifecycle.settle()
    assert world.failures("m") == []


def test_going_back_from_a_version_that_is_broken(world: Any) -> None:
    world.loading.broken["m", 2] = [RequestError(Code.INTERNAL, "x")] * 9
    for version in (1, 2, 1):
        world.want("m", version)
    assert world.failures("m") == []
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    assert world.loading.loads == [("m", 1), ("m", 2)]
    world.now += 9 * INTERVAL
    world.lifecycle.settle()
    assert world.loading.loads == [("m", 1), ("m", 2)]


def test_retries_come_after_their_interval_and_end(loading: Any, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=2, load_retry_interval_micros=2_500_000))
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, f"{number}") for number in range(9)]
    world.want("m", 1)
    assert world.states() == {1: State.LOADING}
    assert world.failures("m") is None
    world.now += 2.4
    world.lifecycle.settle()
    assert len(loading.calls) == 1
    world.now += 0.2
    world.lifecycle.settle()
    assert len(loading.calls) == 2
    world.now += 100
    world.lifecycle.settle()
    assert len(loading.calls) == 3
    assert world.failures("m") == [("m", 1, "2")]
    world.now += 100
    world.lifecycle.settle()
    assert len(loading.calls) == 3
    # A version that failed is tried again when it has gone and come back.
    world.want("m")
    loading.broken.clear()
    world.want("m", 1)
    assert world.states() == {1: State.AVAILABLE}


@pytest.mark.parametrize("interval", [0, -1])
def test_retries_without_an_interval(loading: Any, interval: int, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(load_retry_interval_micros=interval))
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 5
    world.want("m", 1)
    assert len(loading.calls) == 6
    assert world.states() == {1: State.AVAILABLE}


def test_no_retries(loading: Any, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 5
    world.want("m", 1)
    assert world.failures("m") == [("m", 1, "x")]
    assert len(loading.calls) == 1


def test_a_model_that_waits_for_a_retry_keeps_no_other_waiting(world: Any) -> None:
    world.loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")]
    world.want("m", 1)
    world.want("n", 1)
    assert world.manager.models() == (("n", 1),)
    world.now += INTERVAL
    world.lifecycle.settle()
    assert world.manager.models() == (("m", 1), ("n", 1))


def test_retries_end_when_the_version_is_wanted_no_more(world: Any) -> None:
    world.loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 9
    world.want("m", 1)
    world.want("m", 2)
    world.now += INTERVAL
    world.lifecycle.settle()
    assert world.loading.loads == [("m", 1), ("m", 2)]
    assert world.manager.status("m", 1)[0].text == "x"
    assert world.states() == {2: State.AVAILABLE, 1: State.END}


def test_one_good_version_is_enough(loading: Any, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 2] = [RequestError(Code.INTERNAL, "x")]
    world.want("m", 1, 2)
    assert world.failures("m") == []
    assert world.manager.resolve("m").version == 1


def test_several_models_that_cannot_be_served(loading: Any, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=0))
    for key in (("b", 1), ("b", 2), ("a", 7)):
        loading.broken[key] = [RequestError(Code.INTERNAL, f"{key}")]
    world.want("b", 1, 2)
    world.want("good", 1)
    assert world.failures("a", "b", "good") is None
    world.want("a", 7)
    assert world.failures("a", "b", "good") == [("a", 7, "('a', 7)"), ("b", 2, "('b', 2)")]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RequestError(Code.DATA_LOSS, "bad"), Code.DATA_LOSS, "bad"),
        (LoadError("engine.model", "no graph").with_code(Code.NOT_FOUND), Code.NOT_FOUND, "no graph"),
        (InputError("model.files", "no files"), Code.INVALID_ARGUMENT, "no files"),
        (IntegrityError("model.hash", "changed"), Code.DATA_LOSS, "changed"),
        (FileNotFoundError(2, "No such file", "/models/m/1/x"), Code.NOT_FOUND, "/models/m/1/x: No such file"),
        (PermissionError(13, "Permission denied", "/x"), Code.UNKNOWN, "/x: Permission denied"),
        (ValueError("a client's secret"), Code.INTERNAL, "Internal error: ValueError"),
        (MemoryError(), Code.INTERNAL, "Internal error: MemoryError"),
    ],
)
def test_what_is_told_of_errors(loading: Any, error: Exception, code: Code, text: str, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 1] = [error]
    world.want("m", 1)
    status = world.manager.status("m", 1)[0]
    assert (status.state, status.code) == (State.END, code)
    assert text in status.text
    assert "secret" not in status.text


def test_a_version_that_the_manager_refuses_has_failed(world: Any) -> None:
    world.manager.add("m", 1, world.loading("m", 1, Path()))
    world.want("m", 1)
    assert world.failures("m") == [("m", 1, world.manager.status("m", 1)[0].text)]
    assert "loaded already" in world.manager.status("m", 1)[0].text
    assert world.manager.resolve("m").version == 1


def test_a_version_that_failed_is_tried_once_more_when_somebody_says_so(loading: Any, make_world: Any) -> None:
    world = make_world(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 2] = [RequestError(Code.INTERNAL, "x")] * 2
    world.want("m", 1, 2)
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    world.lifecycle.again("m", 2)
    world.lifecycle.settle()
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    world.lifecycle.again("m", 2)
    world.lifecycle.settle()
    assert world.states() == {2: State.AVAILABLE, 1: State.AVAILABLE}
    # Of what serves, is unknown or is wanted no more, nothing becomes.
    calls = len(loading.calls)
    for name, number in (("m", 2), ("m", 3), ("n", 1)):
        world.lifecycle.again(name, number)
        world.lifecycle.settle()
    assert len(loading.calls) == calls
