from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import State

WaitFor = Callable[[Callable[[], object], str], None]
Make = Callable[..., ServerCore]


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Threads take turns fifty times as often: more interleavings, and nobody waits long for a busy thread."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 50)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("quick_turns")
def test_no_request_is_lost_while_versions_are_swapped(
    core: Make, tmp_path: Path, wait_for: WaitFor, config: Any, model: Any
) -> None:
    """Threads predict while versions change forty times: each is answered, by a version that may still answer."""
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    options = CoreOptions(
        loading=LoadOptions(num_load_threads=2, num_unload_threads=1, max_num_load_retries=0),
        file_system_poll_wait_seconds=0,
    )
    served = core(options)
    served.reload(config(model("m", base)))
    stop = threading.Event()
    counts, errors = [0] * 3, []

    def ask(index: int) -> None:
        last = 0
        try:
            while not stop.is_set():
                loaded = served.manager.resolve("m")
                state = served.manager.status("m", loaded.version)[0].state
                assert state is not State.END, "a version ended while a request held it"
                assert loaded.servable.predict("", {}) == {"version": loaded.version}
                assert loaded.version >= last, "an older version answered after a newer one"
                last = loaded.version
                counts[index] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for version in range(2, 42):
        (base / str(version)).mkdir()
        (base / str(version - 1)).rmdir()
        before = list(counts)
        served.poll()
        wait_for(lambda: served.manager.models() == (("m", version),), "the switch")  # noqa: B023  # called at once
        wait_for(lambda: errors or all(a > b for a, b in zip(counts, before, strict=True)), "a request")  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    wait_for(lambda: served.manager.status("m", 40)[0].state is State.END, "the last but one to end")
    statuses = served.manager.status("m")
    assert [status.version for status in statuses if status.state is not State.END] == [41]


async def test_a_version_ends_although_the_scheduler_computed_with_it(
    core: Make, folder: Path, wait_for: WaitFor, config: Any, model: Any
) -> None:
    """What computes keeps no version longer than a request does: otherwise none would ever end on an idle server."""
    served, scheduler = core(), Scheduler()
    try:
        served.reload(config(model("m", folder)))
        for _ in range(3):
            await scheduler.predict(served.manager.resolve("m"), "serving_default", {"x": np.zeros((1, 1), np.float32)})
        (folder / "3").mkdir()
        served.poll()
        await asyncio.to_thread(
            wait_for, lambda: served.manager.status("m", 2)[0].state is State.END, "the old version to end"
        )
    finally:
        await scheduler.close()
