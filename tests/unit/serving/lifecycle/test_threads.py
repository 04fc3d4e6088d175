from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import State
from ensconce.tfserving.refusal import Code, RequestError


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
