from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.manager import State
from ensconce.tfserving.refusal import Code, RequestError


def test_what_is_wanted_is_loaded_latest_first(world: Any) -> None:
    world.want("m", 1, 3, 2)
    assert world.loading.calls == [("m", version, Path(f"/models/m/{version}")) for version in (3, 2, 1)]
    assert world.manager.resolve("m").version == 3
    assert set(world.states().values()) == {State.AVAILABLE}
    assert world.failures("m") == []


def test_states_on_the_way(world: Any) -> None:
    seen: list[dict[int, State]] = []
    world.loading.on_load = lambda *_: seen.append(world.states())
    world.want("m", 1, 2)
    assert seen == [
        {2: State.LOADING, 1: State.START},
        {2: State.AVAILABLE, 1: State.LOADING},
    ]


def test_the_new_one_serves_before_the_old_one_goes(world: Any) -> None:
    world.want("m", 1)
    world.loading.on_load = lambda *_: world.manager.resolve("m", 1)
    world.want("m", 2)
    assert world.manager.models() == (("m", 2),)
    assert world.states() == {2: State.AVAILABLE, 1: State.END}


def test_going_back_to_an_older_version(world: Any) -> None:
    for version in (1, 2, 1):
        world.want("m", version)
    assert world.manager.models() == (("m", 1),)
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    assert world.loading.loads == [("m", 1), ("m", 2), ("m", 1)]


def test_a_model_that_is_wanted_no_more(world: Any) -> None:
    world.want("m", 1, 2)
    world.want("n", 1)
    world.want("m")
    assert world.manager.models() == (("n", 1),)
    assert world.states() == {2: State.END, 1: State.END}
    with pytest.raises(RequestError, match=r"Latest\(m\)"):
        world.manager.resolve("m")
    assert world.failures("m") is None


def test_a_version_that_stays_is_not_loaded_again_even_from_elsewhere(world: Any) -> None:
    world.want("m", 1)
    world.lifecycle.want("m", {1: Path("/elsewhere/1")})
    world.lifecycle.settle()
    assert len(world.loading.calls) == 1


def test_a_version_ends_when_its_last_request_does(world: Any) -> None:
    world.want("m", 1)
    request = world.manager.resolve("m")
    servable = weakref.ref(request.servable)
    world.want("m", 2)
    assert world.states() == {2: State.AVAILABLE, 1: State.UNLOADING}
    assert request.servable.predict("", {}) == {"version": 1}
    # It cannot come back before it has gone.
    world.want("m", 1)
    assert world.manager.models() == (("m", 2),)
    assert world.failures("m") is None
    del request
    world.lifecycle.settle()
    gc.collect()
    assert servable() is None
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    assert world.failures("m") == []


def test_a_version_that_somebody_else_took_out(world: Any) -> None:
    world.want("m", 1)
    request = world.manager.resolve("m")
    world.manager.remove("m", 1)
    world.want("m", 2)
    world.want("m")
    del request
    world.lifecycle.settle()
    assert world.states() == {2: State.END, 1: State.END}
    world.want("m", 1)
    assert world.manager.models() == (("m", 1),)
    world.manager.remove("m", 1)
    world.lifecycle.settle()
    # It is wanted still, and stays away until that changes.
    assert world.manager.models() == ()
    world.want("m")
    world.want("m", 1)
    assert world.manager.models() == (("m", 1),)


def test_a_version_that_must_not_serve_goes_without_another_in_its_place(world: Any) -> None:
    world.want("m", 1, 2)
    world.loading.broken["m", 3] = [RequestError(Code.INTERNAL, "x")] * 9
    world.want("m", 2, 3)
    assert world.manager.models() == (("m", 2),)
    world.lifecycle.drop("m", 2)
    world.lifecycle.drop("m", 7)
    world.lifecycle.settle()
    gc.collect()
    world.lifecycle.settle()
    assert world.manager.models() == ()
    assert world.states()[2] is State.END
    # Also when the manager has let it go already; wanted again, it is loaded anew.
    world.want("m", 2, 3)
    assert world.manager.models() == (("m", 2),)
    world.manager.remove("m", 2, State.UNLOADING)
    world.lifecycle.drop("m", 2)
    world.lifecycle.settle()
    gc.collect()
    world.lifecycle.settle()
    assert world.states()[2] is State.END
