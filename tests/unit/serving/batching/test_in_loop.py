"""Batches that are over at once are computed in the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from ensconce.serving.batching import pace
from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import Array

LEARNED = 8
"""Calls after which the time of a shape is known."""


def rows(count: int, value: float = 1.0) -> dict[str, Array]:
    return {"x": np.full((count, 2), value, np.float32)}


class Placed:
    """Doubles, and notes in which thread; what it is told to do first is done there."""

    def __init__(self, doubler: Any) -> None:
        self.places: list[bool] = []
        self.first: Callable[[], object] = lambda: None
        self.servable = doubler(self._compute)
        self.loaded = LoadedServable("m", 1, self.servable)

    def _compute(self, inputs: Any) -> dict[str, Array]:
        self.places.append(threading.current_thread() is threading.main_thread())
        self.first()
        return {"y": inputs["x"] * 2}

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """From now on threads wait: they set the first event, until somebody sets the second."""
        begun, go = threading.Event(), threading.Event()

        def wait() -> None:
            if not self.places[-1]:
                begun.set()
                assert go.wait(30)

        self.first = wait
        return begun, go


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is: everything is over at once, and nothing is a stall."""
    monkeypatch.setattr(pace, "_QUICK_S", 1000)
    monkeypatch.setattr(pace, "_STALL_S", 1000)


@pytest.fixture
def placed(doubler: Any) -> Placed:
    return Placed(doubler)


@pytest_asyncio.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    made = Scheduler()
    yield made
    await asyncio.wait_for(made.close(), 30)


async def ask(scheduler: Scheduler, placed: Placed, inputs: dict[str, Array] | None = None, times: int = 1) -> None:
    for _ in range(times):
        outputs = await scheduler.predict(placed.loaded, "", inputs or rows(1, 3))
        assert outputs["y"].tolist() == [[6, 6]] * len(outputs["y"])


async def test_what_is_known_to_be_quick_needs_no_thread(scheduler: Scheduler, placed: Placed) -> None:
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places[0] is False
    assert placed.places[-1] is True


async def test_another_size_or_shape_is_learned_by_itself(scheduler: Scheduler, doubler: Any) -> None:
    placed = Placed(lambda compute: doubler(compute, inputs={"x": (-1, -1)}, outputs={"y": (-1, -1)}))
    await ask(scheduler, placed, times=LEARNED)
    await ask(scheduler, placed, rows(2, 3))
    assert placed.places[-1] is False
    outputs = await scheduler.predict(placed.loaded, "", {"x": np.full((1, 3), 3, np.float32)})
    assert outputs["y"].tolist() == [[6, 6, 6]]
    assert placed.places[-1] is False
    await ask(scheduler, placed)
    assert placed.places[-1] is True


async def test_what_arrives_together_is_merged(scheduler: Scheduler, placed: Placed) -> None:
    for _ in range(LEARNED):
        await asyncio.gather(*[ask(scheduler, placed) for _ in range(4)])
    placed.servable.calls.clear()
    placed.places.clear()
    await asyncio.gather(*[ask(scheduler, placed) for _ in range(4)])
    assert placed.servable.sizes == [4]
    assert placed.places == [True]


async def test_slow_batches_stay_in_threads(
    scheduler: Scheduler, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_QUICK_S", 0)
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places == [False] * LEARNED


async def test_who_stalls_the_loop_leaves_it_for_long(
    scheduler: Scheduler, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(scheduler, placed, times=LEARNED)
    monkeypatch.setattr(pace, "_STALL_S", 0)
    before = len(placed.places)
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places[before:] == [True] * 3 + [False] * (LEARNED - 3)
    await ask(scheduler, placed, rows(2, 3), times=LEARNED)
    assert placed.places[before + LEARNED :] == [False] * LEARNED
    monkeypatch.setattr(pace, "_STALL_S", 1000)
    monkeypatch.setattr(pace, "_FORGET_AFTER", 4)
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places[-1] is True


def test_what_turns_out_slower_there_goes_back_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_QUICK_S", 0.0003)
    learned = pace.Pace(True)
    for _ in range(4):
        learned.worked((), 1, 1e-4, 1e-3)
    assert learned.is_quick((), 1, 1)
    for _ in range(3):
        learned.occupied((), 1, 1e-3)
    assert not learned.is_quick((), 1, 1)
    for _ in range(512):
        learned.worked((), 1, 1e-4, 1e-3)
    assert learned.is_quick((), 1, 1)


async def test_strings_are_of_any_length(scheduler: Scheduler, doubler: Any) -> None:
    places = []

    def compute(inputs: Any) -> dict[str, Array]:
        places.append(threading.current_thread() is threading.main_thread())
        return {"y": inputs["x"]}

    servable = LoadedServable("m", 1, doubler(compute, dtype=object))
    for _ in range(LEARNED):
        await scheduler.predict(servable, "", {"x": np.array([[b"a", b"b"]], object)})
    assert places == [False] * LEARNED


async def test_signatures_without_rows_too(scheduler: Scheduler, doubler: Any) -> None:
    placed = Placed(lambda compute: doubler(compute, inputs={"x": (1, 2)}, outputs={"y": (1, 2)}))
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places[-1] is True


async def test_parameters_ask_for_threads(placed: Placed) -> None:
    scheduler = Scheduler(Parameters(max_batch_size=4, batch_timeout_micros=0, num_batch_threads=1))
    await ask(scheduler, placed, times=LEARNED)
    await scheduler.close()
    assert placed.places == [False] * LEARNED


async def test_failures_are_told_as_in_threads(scheduler: Scheduler, placed: Placed) -> None:
    await ask(scheduler, placed, times=LEARNED)
    for raised, code in (
        (RequestError(Code.INVALID_ARGUMENT, "no"), Code.INVALID_ARGUMENT),
        (SystemExit(), Code.INTERNAL),
    ):

        def fail(raised: BaseException = raised) -> None:
            raise raised

        placed.first = fail
        with pytest.raises(RequestError) as caught:
            await scheduler.predict(placed.loaded, "", rows(1))
        assert caught.value.code is code
        assert placed.places[-1] is True
    placed.first = lambda: None
    await ask(scheduler, placed)
    assert scheduler.requests == 0


async def test_a_merged_failure_is_told_to_the_one_to_blame(scheduler: Scheduler, placed: Placed) -> None:
    for _ in range(LEARNED):
        await asyncio.gather(*[ask(scheduler, placed) for _ in range(3)])
    placed.servable.failing = lambda inputs: bool((inputs["x"] == 7).any())
    good, bad = rows(1, 3), rows(1, 7)
    answers = await asyncio.gather(
        *[scheduler.predict(placed.loaded, "", each) for each in (good, bad, good)], return_exceptions=True
    )
    assert isinstance(answers[1], RequestError)
    assert [each["y"].tolist() for each in (answers[0], answers[2])] == [[[6, 6]], [[6, 6]]]  # type: ignore[index]


async def test_what_waits_when_it_closes_is_refused(placed: Placed) -> None:
    scheduler = Scheduler()
    await ask(scheduler, placed, times=LEARNED)
    before = len(placed.places)
    task = asyncio.create_task(scheduler.predict(placed.loaded, "", rows(1)))
    await asyncio.sleep(0)
    await scheduler.close()
    with pytest.raises(RequestError) as caught:
        await task
    assert caught.value.code is Code.UNAVAILABLE
    assert len(placed.places) == before


async def test_threads_and_loop_share_a_model(scheduler: Scheduler, placed: Placed) -> None:
    """A slow batch of the model is in a thread: the quick ones wait for it, and what is still wanted is computed."""
    await ask(scheduler, placed, times=LEARNED)
    begun, go = placed.hold()
    slow = asyncio.create_task(ask(scheduler, placed, rows(5, 3)))
    while not begun.is_set():
        await asyncio.sleep(0)
    gone = asyncio.create_task(scheduler.predict(placed.loaded, "", rows(1, 8)))
    quick = asyncio.create_task(ask(scheduler, placed))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not quick.done()
    gone.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(slow, quick)
    assert gone.cancelled()
    assert placed.places[-2:] == [False, True]
    assert placed.servable.sizes[-2:] == [5, 1]
    assert not (placed.servable.calls[-1]["x"] == 8).any()


async def test_what_is_quick_has_its_turn_among_what_is_not(scheduler: Scheduler, placed: Placed) -> None:
    """Batches of two signatures wait: the quick one between two that are not is computed between them."""
    await ask(scheduler, placed, times=LEARNED)
    begun, go = placed.hold()
    placed.servable.calls.clear()
    tasks = [asyncio.create_task(scheduler.predict(placed.loaded, "other", rows(20)))]
    while not begun.is_set():
        await asyncio.sleep(0)
    for name, count in (("other", 20), ("", 1), ("other", 20)):
        tasks.append(asyncio.create_task(scheduler.predict(placed.loaded, name, rows(count))))
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert placed.servable.sizes == [20, 20, 1, 20]


async def test_each_choice_of_outputs_is_learned_by_itself(scheduler: Scheduler, doubler: Any) -> None:
    """A model may compute only what is asked for."""
    placed = Placed(doubler)
    for _ in range(LEARNED):
        await scheduler.predict(placed.loaded, "", rows(1), ["y"])
    assert placed.places[-1] is True
    placed.servable.signatures = {
        name: dataclasses.replace(each, outputs={**each.outputs, "z": each.outputs["y"]})
        for name, each in placed.servable.signatures.items()
    }
    await scheduler.predict(placed.loaded, "", rows(1), ["y", "z"])
    assert placed.places[-1] is False


async def test_an_engine_with_threads_of_its_own_is_not_quick(
    scheduler: Scheduler, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no processor time of the thread that asks, and long all the same."""
    monkeypatch.setattr(pace, "_QUICK_S", 0.5)
    monkeypatch.setattr(pace, "_STALL_S", 1)
    times = iter(range(0, 10_000, 5))
    monkeypatch.setattr("ensconce.serving.batching.compute.time.perf_counter", lambda: float(next(times)))
    await ask(scheduler, placed, times=LEARNED)
    assert placed.places == [False] * LEARNED


async def test_an_outcome_that_cannot_be_told_takes_no_other_with_it(scheduler: Scheduler, placed: Placed) -> None:
    await ask(scheduler, placed, times=LEARNED)
    signature = placed.servable.signatures["serving_default"]
    plan = scheduler.plan(placed.loaded, signature, rows(1))
    told: list[Any] = []

    def fail(_outcome: Any) -> None:
        raise ValueError

    scheduler.begin(placed.loaded, plan, rows(1), fail)
    scheduler.begin(placed.loaded, plan, rows(1, 3), told.append)
    await ask(scheduler, placed)
    while not told:
        await asyncio.sleep(0)
    assert told[0]["y"].tolist() == [[6, 6]]


async def test_parts_that_do_not_fit_together_are_told(doubler: Any) -> None:
    """Outputs as long as inputs, which are padded in one part of a request and not in the other."""
    placed = Placed(lambda compute: doubler(compute, inputs={"x": (-1, -1)}, outputs={"y": (-1, -1)}))
    scheduler = Scheduler(
        Parameters(
            max_batch_size=8,
            max_execution_batch_size=4,
            batch_timeout_micros=50_000,
            num_batch_threads=1,
            pad_variable_length_inputs=True,
            enable_large_batch_splitting=True,
        )
    )
    first = asyncio.create_task(scheduler.predict(placed.loaded, "", {"x": np.ones((2, 5), np.float32)}))
    await asyncio.sleep(0)
    second = scheduler.predict(placed.loaded, "", {"x": np.ones((6, 3), np.float32)})
    with pytest.raises(RequestError) as caught:
        await asyncio.wait_for(second, 30)
    assert caught.value.code is Code.INTERNAL
    assert (await first)["y"].shape == (2, 5)
    await asyncio.wait_for(scheduler.close(), 30)


def test_of_many_shapes_the_oldest_are_forgotten() -> None:
    learned = pace.Pace(True)
    for rows_of in range(1, 400):
        for _ in range(4):
            learned.worked((), rows_of, 1e-5, 1e-5)
    assert learned.is_quick((), 399, 1)
    assert not learned.is_quick((), 1, 1)
    assert len(learned._worked) == 128
