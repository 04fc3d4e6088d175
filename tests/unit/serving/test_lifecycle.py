"""What lives when. Most run without a thread and with a clock of their own, so that nothing is waited for."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import InputError, IntegrityError
from ensconce.serving.engines import LoadError
from ensconce.serving.lifecycle import Lifecycle
from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import LoadedServable, ModelManager, State
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature

INTERVAL = 60.0


class Servable:
    signatures: Mapping[str, Signature] = {}

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {}


class World:
    """A manager and a lifecycle without a thread."""

    def __init__(self, loading: Any, options: LoadOptions | None = None) -> None:
        self.now = 1000.0
        self.loading = loading
        self.manager = ModelManager()
        self.lifecycle = Lifecycle(self.manager, loading, options, clock=lambda: self.now)

    def want(self, name: str, *versions: int) -> None:
        self.lifecycle.want(name, {version: Path("/models", name, str(version)) for version in versions})
        self.lifecycle.settle()

    def states(self, name: str = "m") -> dict[int, State]:
        return {status.version: status.state for status in self.manager.status(name)}

    def failures(self, *names: str) -> list[tuple[str, int, str]] | None:
        found = self.lifecycle.failures(names)
        return None if found is None else [(name, status.version, status.text) for name, status in found]


@pytest.fixture
def world(loading: Any) -> World:
    return World(loading)


def test_what_is_wanted_is_loaded_latest_first(world: World) -> None:
    world.want("m", 1, 3, 2)
    assert world.loading.calls == [("m", version, Path(f"/models/m/{version}")) for version in (3, 2, 1)]
    assert world.manager.resolve("m").version == 3
    assert set(world.states().values()) == {State.AVAILABLE}
    assert world.failures("m") == []


def test_states_on_the_way(world: World) -> None:
    seen: list[dict[int, State]] = []
    world.loading.on_load = lambda *_: seen.append(world.states())
    world.want("m", 1, 2)
    assert seen == [
        {2: State.LOADING, 1: State.START},
        {2: State.AVAILABLE, 1: State.LOADING},
    ]


def test_the_new_one_serves_before_the_old_one_goes(world: World) -> None:
    world.want("m", 1)
    world.loading.on_load = lambda *_: world.manager.resolve("m", 1)
    world.want("m", 2)
    assert world.manager.models() == (("m", 2),)
    assert world.states() == {2: State.AVAILABLE, 1: State.END}


def test_going_back_to_an_older_version(world: World) -> None:
    for version in (1, 2, 1):
        world.want("m", version)
    assert world.manager.models() == (("m", 1),)
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    assert world.loading.loads == [("m", 1), ("m", 2), ("m", 1)]


def test_a_model_that_is_wanted_no_more(world: World) -> None:
    world.want("m", 1, 2)
    world.want("n", 1)
    world.want("m")
    assert world.manager.models() == (("n", 1),)
    assert world.states() == {2: State.END, 1: State.END}
    with pytest.raises(RequestError, match=r"Latest\(m\)"):
        world.manager.resolve("m")
    assert world.failures("m") is None


def test_a_version_that_stays_is_not_loaded_again_even_from_elsewhere(world: World) -> None:
    world.want("m", 1)
    world.lifecycle.want("m", {1: Path("/elsewhere/1")})
    world.lifecycle.settle()
    assert len(world.loading.calls) == 1


def test_a_broken_version_takes_nothing_down(world: World) -> None:
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


def test_what_was_is_no_answer_to_what_is_wanted_now(world: World) -> None:
    world.want("m", 1)
    world.lifecycle.want("m", {2: Path("/models/m/2")})
    assert world.failures("m") is None
    world.lifecycle.settle()
    assert world.failures("m") == []


def test_going_back_from_a_version_that_is_broken(world: World) -> None:
    world.loading.broken["m", 2] = [RequestError(Code.INTERNAL, "x")] * 9
    for version in (1, 2, 1):
        world.want("m", version)
    assert world.failures("m") == []
    assert world.states() == {2: State.END, 1: State.AVAILABLE}
    assert world.loading.loads == [("m", 1), ("m", 2)]
    world.now += 9 * INTERVAL
    world.lifecycle.settle()
    assert world.loading.loads == [("m", 1), ("m", 2)]


VERSIONS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("want"), st.frozensets(VERSIONS, min_size=1)),
    st.tuples(st.sampled_from(["break", "mend"]), VERSIONS),
    st.tuples(st.sampled_from(["hold", "let go", "wait"]), st.none()),
)


@given(st.lists(STEPS, max_size=25))
def test_a_model_that_was_served_is_served_as_long_as_it_is_wanted(steps: list[tuple[str, Any]]) -> None:
    broken: set[int] = set()
    held: list[LoadedServable] = []

    def load(name: str, version: int, _path: Path) -> Any:
        if served:
            # Also in the middle of loading something else.
            world.manager.resolve("m")
        if version in broken:
            raise RequestError(Code.INTERNAL, f"{name} {version}")
        return Servable()

    served = False
    world = World(load, LoadOptions(max_num_load_retries=1))
    for step, value in [*steps, ("let go", None), ("wait", None), ("wait", None)]:
        if step == "want":
            world.lifecycle.want("m", {version: Path(str(version)) for version in value})
        elif step == "hold" and served:
            held.append(world.manager.resolve("m"))
        elif step == "let go":
            held.clear()
        elif step == "wait":
            world.now += INTERVAL
        elif step == "break":
            broken.add(value)
        elif step == "mend":
            broken.discard(value)
        world.lifecycle.settle()
        served = served or bool(world.manager.models())
        assert served == bool(world.manager.models())
    wanted = next((value for step, value in reversed(steps) if step == "want"), frozenset())
    available = {version for _, version in world.manager.models()}
    # All that is wanted serves or has failed; of the rest at most one serves, and only while nothing else does.
    assert all(version in available or world.states()[version] is State.END for version in wanted)
    assert available <= wanted or (not available & wanted and len(available) == 1)
    assert world.failures("m") is not None or not wanted
    world.want("m")
    assert world.manager.models() == ()
    assert set(world.states().values()) <= {State.END} if wanted else True


def test_retries_come_after_their_interval_and_end(loading: Any) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=2, load_retry_interval_micros=2_500_000))
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
def test_retries_without_an_interval(loading: Any, interval: int) -> None:
    world = World(loading, LoadOptions(load_retry_interval_micros=interval))
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 5
    world.want("m", 1)
    assert len(loading.calls) == 6
    assert world.states() == {1: State.AVAILABLE}


def test_no_retries(loading: Any) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 5
    world.want("m", 1)
    assert world.failures("m") == [("m", 1, "x")]
    assert len(loading.calls) == 1


def test_a_model_that_waits_for_a_retry_keeps_no_other_waiting(world: World) -> None:
    world.loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")]
    world.want("m", 1)
    world.want("n", 1)
    assert world.manager.models() == (("n", 1),)
    world.now += INTERVAL
    world.lifecycle.settle()
    assert world.manager.models() == (("m", 1), ("n", 1))


def test_retries_end_when_the_version_is_wanted_no_more(world: World) -> None:
    world.loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 9
    world.want("m", 1)
    world.want("m", 2)
    world.now += INTERVAL
    world.lifecycle.settle()
    assert world.loading.loads == [("m", 1), ("m", 2)]
    assert world.manager.status("m", 1)[0].text == "x"
    assert world.states() == {2: State.AVAILABLE, 1: State.END}


def test_a_version_ends_when_its_last_request_does(world: World) -> None:
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


def test_one_good_version_is_enough(loading: Any) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 2] = [RequestError(Code.INTERNAL, "x")]
    world.want("m", 1, 2)
    assert world.failures("m") == []
    assert world.manager.resolve("m").version == 1


def test_several_models_that_cannot_be_served(loading: Any) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=0))
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
def test_what_is_told_of_errors(loading: Any, error: Exception, code: Code, text: str) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=0))
    loading.broken["m", 1] = [error]
    world.want("m", 1)
    status = world.manager.status("m", 1)[0]
    assert (status.state, status.code) == (State.END, code)
    assert text in status.text
    assert "secret" not in status.text


def test_a_version_that_the_manager_refuses_has_failed(world: World) -> None:
    world.manager.add("m", 1, world.loading("m", 1, Path()))
    world.want("m", 1)
    assert world.failures("m") == [("m", 1, world.manager.status("m", 1)[0].text)]
    assert "loaded already" in world.manager.status("m", 1)[0].text
    assert world.manager.resolve("m").version == 1


def test_a_version_that_somebody_else_took_out(world: World) -> None:
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


@pytest.fixture
def running(loading: Any, wait_for: Callable[[Callable[[], object], str], None]) -> Any:
    made: list[Lifecycle] = []

    def make(options: LoadOptions, **more: Any) -> tuple[ModelManager, Lifecycle]:
        manager = ModelManager()
        lifecycle = Lifecycle(manager, loading, options, **more)
        lifecycle.start()
        made.append(lifecycle)
        return manager, lifecycle

    yield make
    for held in loading.held.values():
        held.set()
    for lifecycle in made:
        lifecycle.close()


def test_loads_in_several_threads(running: Any, loading: Any) -> None:
    both = threading.Barrier(2)
    loading.on_load = lambda *_: both.wait(60)
    manager, lifecycle = running(LoadOptions(num_load_threads=2, num_unload_threads=1))
    lifecycle.want("m", {1: Path("/m")})
    lifecycle.want("n", {1: Path("/n")})
    # Each waits for the other one in the loader.
    assert lifecycle.wait(["m", "n"], lambda: True) == []
    assert manager.models() == (("m", 1), ("n", 1))


def test_a_load_that_takes_long_keeps_no_other_from_being_unloaded(
    running: Any, loading: Any, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    manager, lifecycle = running(LoadOptions(num_load_threads=1, num_unload_threads=1))
    lifecycle.want("m", {1: Path("/m")})
    assert lifecycle.wait(["m"], lambda: True) == []
    loading.held["slow", 1] = threading.Event()
    lifecycle.want("slow", {1: Path("/slow")})
    lifecycle.want("m", {})
    wait_for(lambda: manager.status("m", 1)[0].state is State.END, "the model to be unloaded")
    assert lifecycle.wait(["slow"], lambda: manager.status("slow", 1)[0].state is not State.LOADING) is None
    loading.held["slow", 1].set()
    assert lifecycle.wait(["slow"], lambda: True) == []


def test_a_load_whose_version_is_wanted_no_more_is_given_up(
    running: Any, loading: Any, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    manager, lifecycle = running(LoadOptions(num_load_threads=1))
    loading.held["m", 1] = threading.Event()
    lifecycle.want("m", {1: Path("/m/1")})
    wait_for(lambda: loading.calls, "the load to begin")
    lifecycle.want("m", {2: Path("/m/2")})
    wait_for(lambda: len(manager.status("m")) == 2, "the change to be known")
    loading.held["m", 1].set()
    assert lifecycle.wait(["m"], lambda: True) == []
    status = manager.status("m", 1)[0]
    assert (status.state, status.code, status.text) == (State.END, Code.CANCELLED, "Loading of servable cancelled")
    assert manager.models() == (("m", 2),)


def test_who_waits_is_told_of_the_end(running: Any) -> None:
    _, lifecycle = running(LoadOptions())
    found: list[object] = [0]
    thread = threading.Thread(target=lambda: found.append(lifecycle.wait(["m"], lambda: True)))
    thread.start()
    lifecycle.close()
    thread.join(60)
    assert found == [0, None]


def test_a_retry_in_a_thread(running: Any, loading: Any) -> None:
    loading.broken["m", 1] = [RequestError(Code.INTERNAL, "x")] * 2
    _, lifecycle = running(LoadOptions(load_retry_interval_micros=1000))
    lifecycle.want("m", {1: Path("/m")})
    assert lifecycle.wait(["m"], lambda: True) == []
    assert len(loading.calls) == 3


def test_a_version_that_failed_is_tried_once_more_when_somebody_says_so(loading: Any) -> None:
    world = World(loading, LoadOptions(max_num_load_retries=0))
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


def test_a_version_that_must_not_serve_goes_without_another_in_its_place(world: World) -> None:
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
