from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from ensconce.serving.batching.parameters import Bounds, Parameters
from ensconce.serving.batching.scheduler import BatchRecord, Scheduler
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.refusal import Code, RequestError, invalid
from ensconce.tfserving.tensor import Array

Make = Callable[..., Scheduler]


def rows(count: int, value: float = 1.0) -> dict[str, Array]:
    return {"x": np.full((count, 2), value, np.float32)}


def loaded(servable: Any, name: str = "m", version: int = 1) -> LoadedServable:
    return LoadedServable(name, version, servable)


async def until(reached: Callable[[], object]) -> None:
    while not reached():
        await asyncio.sleep(0)


async def settled(tasks: Any) -> None:
    """Let tasks run until they wait for something."""
    for _ in range(3):
        await asyncio.sleep(0)


async def refusal(task: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await task
    return caught.value


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Scheduler] = []
    # Servers of other tests may be running in this process.
    others = set(threading.enumerate())

    def scheduler(*args: Any, **options: Any) -> Scheduler:
        made.append(Scheduler(*args, **options))
        return made[-1]

    yield scheduler
    for each in made:
        await asyncio.wait_for(each.close(), 30)
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name.startswith("inference_")]


@pytest.fixture(autouse=True)
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """These servables stop their threads to show what waits; in the event loop they would stop all."""
    monkeypatch.setattr("ensconce.serving.batching.pace._QUICK_S", -1)


class Crowd:
    """Requests that arrive while the engine is held, so that it is certain what waits together."""

    def __init__(self, scheduler: Scheduler, servable: Any) -> None:
        self.scheduler, self.servable = scheduler, servable
        self.tasks: list[asyncio.Task[Any]] = []

    async def hold(self, name: str = "m") -> None:
        """Occupy the model with one request."""
        self.servable.go.clear()
        self.servable.begun.clear()
        self.tasks.append(self.ask(rows(1), name=name))
        await until(self.servable.begun.is_set)
        self.servable.calls.clear()

    def ask(self, inputs: dict[str, Array], *args: Any, name: str = "m", **options: Any) -> asyncio.Task[Any]:
        """One more request, in the background."""
        target = loaded(self.servable, name)
        return asyncio.create_task(self.scheduler.predict(target, *(args or ("",)), inputs=inputs, **options))

    async def let_go(self) -> None:
        self.servable.go.set()
        await asyncio.gather(*self.tasks)


@pytest_asyncio.fixture
async def crowd(make: Make, doubler: Any) -> Callable[..., Crowd]:
    def gather(servable: Any = None, **options: Any) -> Crowd:
        return Crowd(make(**options), servable or doubler())

    return gather


async def prove(crowd: Crowd) -> None:
    """Let the scheduler find out that the model's rows know nothing of each other."""
    await crowd.hold()
    tasks = [crowd.ask(rows(1, value)) for value in (1, 2)]
    await settled(tasks)
    await crowd.let_go()
    await asyncio.gather(*tasks)
    assert crowd.servable.sizes == [1, 1, 2]
    crowd.servable.calls.clear()


class TestUnasked:
    """Without parameters."""

    async def test_a_request_alone_runs_at_once(self, make: Make, doubler: Any) -> None:
        outputs = await make().predict(loaded(doubler()), "", rows(3, 4), ["y"])
        assert outputs.keys() == {"y"}
        assert outputs["y"].tolist() == [[8, 8]] * 3

    async def test_what_waits_is_merged(self, crowd: Callable[..., Crowd]) -> None:
        records: list[BatchRecord] = []
        these = crowd(observe=records.append)
        await prove(these)
        await these.hold()
        tasks = [these.ask(rows(count, count)) for count in (1, 2, 3)]
        await settled(tasks)
        assert (these.scheduler.requests, these.scheduler.input_bytes) == (4, 7 * 8)
        await these.let_go()
        for count, task in zip((1, 2, 3), tasks, strict=True):
            assert (await task)["y"].tolist() == [[2 * count] * 2] * count
        assert these.servable.sizes == [6]
        assert (these.scheduler.requests, these.scheduler.input_bytes) == (0, 0)
        last = records[-1]
        assert (last.model, last.version, last.signature) == ("m", 1, "serving_default")
        assert (last.requests, last.rows, last.padding, len(last.waited)) == (3, 6, 0, 3)
        assert min(last.waited) >= 0
        assert last.seconds >= 0

    async def test_the_first_merging_is_compared_with_single_results(
        self, crowd: Callable[..., Crowd], doubler: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A model whose rows know of each other must not tell one client of another's data."""
        these = crowd(doubler(lambda inputs: {"y": inputs["x"] / inputs["x"].sum(axis=0)}))
        with caplog.at_level(logging.WARNING):
            for _ in range(4):
                await these.hold()
                tasks = [these.ask(rows(1, value)) for value in (1, 2, 3)]
                await settled(tasks)
                await these.let_go()
                for task in tasks:
                    assert (await task)["y"].tolist() == [[1, 1]]
        assert these.servable.sizes == [1, 1, 1]
        assert caplog.text.count("no longer are") == 1

    @pytest.mark.parametrize("shape", [np.zeros(()), np.zeros((5, 2))])
    async def test_outputs_that_do_not_split_end_merging(
        self, crowd: Callable[..., Crowd], doubler: Any, shape: Array
    ) -> None:
        these = crowd(doubler(lambda inputs: {"y": shape}))
        for _ in range(4):
            await these.hold()
            tasks = [these.ask(rows(1)) for _ in range(2)]
            await settled(tasks)
            await these.let_go()
            for task in tasks:
                assert (await task)["y"].shape == shape.shape
        assert these.servable.sizes == [1, 1]

    async def test_only_what_is_alike_is_merged(self, crowd: Callable[..., Crowd], doubler: Any) -> None:
        wide = {"inputs": {"x": (-1, -1)}, "outputs": {"y": (-1, -1), "z": (-1, -1)}}
        these = crowd(doubler(**wide))
        await prove(these)
        await these.hold()
        other_shape = {"x": np.ones((1, 3), np.float32)}
        tasks = [
            these.ask(rows(1)),
            these.ask(rows(1), "serving_default"),
            these.ask(other_shape),
            these.ask(rows(1), "other"),
            these.ask(rows(1), output_filter=["y"]),
            asyncio.create_task(these.scheduler.predict(loaded(doubler(**wide)), "", rows(1))),
        ]
        await settled(tasks)
        await these.let_go()
        await asyncio.gather(*tasks)
        assert sorted(these.servable.sizes) == [1, 1, 1, 2]

    @pytest.mark.parametrize(
        "shapes",
        [
            {"inputs": {"x": (1, 2)}},
            {"inputs": {"x": None}},
            {"outputs": {"y": (2,)}},
            {"outputs": {"y": ()}},
            {"outputs": {"y": None}},
        ],
    )
    async def test_a_signature_without_a_row_for_each_example_is_never_merged(
        self, crowd: Callable[..., Crowd], doubler: Any, shapes: Any
    ) -> None:
        these = crowd(doubler(**shapes))
        for _ in range(2):
            await these.hold()
            tasks = [these.ask(rows(1)) for _ in range(3)]
            await settled(tasks)
            await these.let_go()
            await asyncio.gather(*tasks)
            assert these.servable.sizes == [1, 1, 1]

    async def test_merging_can_be_turned_off(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(merge=False, threads=1)
        for _ in range(2):
            await these.hold()
            tasks = [these.ask(rows(1)) for _ in range(3)]
            await settled(tasks)
            await these.let_go()
            await asyncio.gather(*tasks)
            assert these.servable.sizes == [1, 1, 1]

    async def test_a_batch_has_bounds(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await prove(these)
        await these.hold()
        tasks = [these.ask(rows(count)) for count in (30, 2, 1, 40, 5)]
        await settled(tasks)
        await these.let_go()
        await asyncio.gather(*tasks)
        assert these.servable.sizes == [32, 1, 40, 5]

    async def test_requests_that_do_not_fit_fail_alone(self, crowd: Callable[..., Crowd], doubler: Any) -> None:
        these = crowd(doubler(lambda inputs: {"y": inputs["x"][:, :2] * 2}))
        await prove(these)
        await these.hold()
        good = [these.ask(rows(1)) for _ in range(2)]
        bad = [
            these.ask({"y": rows(1)["x"]}),
            these.ask({"x": np.zeros((1, 2))}),
            these.ask({"x": np.zeros((1,), np.float32)}),
            these.ask(rows(0)),
        ]
        wrong_filter = these.ask(rows(1), output_filter=["nothing"])
        wrong_signature = these.ask(rows(1), "nothing")
        await settled(good)
        await these.let_go()
        for task in good:
            assert (await task)["y"].tolist() == [[2, 2]]
        assert "Signature input alias: x" in (await refusal(bad[0])).problem
        assert "output tensor alias not found" in (await refusal(wrong_filter)).problem
        assert (await refusal(wrong_signature)).code is Code.FAILED_PRECONDITION
        await asyncio.gather(*bad[1:], return_exceptions=True)
        # A tensor of the wrong type, one without its second axis, one without rows: the model sees each by itself.
        assert sorted(these.servable.sizes) == [0, 1, 1, 2]

    async def test_inputs_that_have_a_default_may_be_left_out_and_are_merged(
        self, crowd: Callable[..., Crowd], doubler: Any
    ) -> None:
        servable = doubler(lambda inputs: {"y": inputs["x"] * inputs["k"][:, None]}, inputs={"k": (-1,), "x": (-1, 2)})
        default = {"k": np.array([5], np.float32)}
        signature = servable.signatures["serving_default"]
        servable.signatures["serving_default"] = dataclasses.replace(signature, defaults=default)
        these = crowd(servable)
        await prove(these)
        await these.hold()
        tasks = [these.ask(rows(1)), these.ask(rows(1) | {"k": np.array([7], np.float32)})]
        await settled(tasks)
        await these.let_go()
        assert [(await task)["y"][0, 0] for task in tasks] == [5, 7]
        assert these.servable.sizes == [2]

    async def test_one_that_breaks_the_model_does_not_break_its_neighbours(
        self, crowd: Callable[..., Crowd], caplog: pytest.LogCaptureFixture
    ) -> None:
        these = crowd()
        await prove(these)
        these.servable.failing = lambda inputs: bool((inputs["x"] == 13).any())
        await these.hold()
        tasks = [these.ask(rows(1, value)) for value in (1, 13, 2)]
        await settled(tasks)
        with caplog.at_level(logging.DEBUG):
            await these.let_go()
            error = await refusal(tasks[1])
        assert (error.code, error.problem) == (Code.INTERNAL, "Internal error: ValueError")
        assert "pixels" not in caplog.text
        assert [(await tasks[index])["y"][0, 0] for index in (0, 2)] == [2, 4]
        assert these.servable.sizes == [3, 1, 1, 1]

    async def test_refusals_of_the_model_come_back(self, make: Make, doubler: Any) -> None:
        def refuse(inputs: Any) -> Any:
            raise invalid("no")

        assert (await refusal(make().predict(loaded(doubler(refuse)), "", rows(1)))).problem == "no"


class TestFairness:
    async def test_a_flood_of_one_model_does_not_starve_another(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(merge=False, threads=1)
        await these.hold("flood")
        flood = [these.ask(rows(1, 1), name="flood") for _ in range(20)]
        few = [these.ask(rows(1, 2), name="few") for _ in range(2)]
        await settled(flood)
        await these.let_go()
        await asyncio.gather(*flood, *few)
        order = [call["x"][0, 0] for call in these.servable.calls]
        assert order[:4] in ([1, 2, 1, 2], [2, 1, 2, 1])

    async def test_signatures_of_a_model_take_turns(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(merge=False, threads=1)
        await these.hold()
        flood = [these.ask(rows(1, 1)) for _ in range(20)]
        few = [these.ask(rows(1, 2), "other") for _ in range(2)]
        await settled(flood)
        await these.let_go()
        await asyncio.gather(*flood, *few)
        order = [call["x"][0, 0] for call in these.servable.calls]
        assert order[:4] in ([1, 2, 1, 2], [2, 1, 2, 1])

    async def test_a_slow_model_leaves_a_thread_to_others(self, crowd: Callable[..., Crowd], doubler: Any) -> None:
        slow = crowd()
        await slow.hold("slow")
        waiting = slow.ask(rows(1), name="slow")
        outputs = await slow.scheduler.predict(loaded(doubler(), "quick"), "", rows(1))
        assert outputs["y"].tolist() == [[2, 2]]
        assert not waiting.done()
        await slow.let_go()
        await waiting


class TestBounds:
    async def test_too_many_requests_are_refused_at_once(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(bounds=Bounds(requests=3, requests_per_model=2))
        await these.hold()
        waiting = these.ask(rows(1))
        await settled(waiting)
        error = await refusal(these.ask(rows(1)))
        assert error.code is Code.UNAVAILABLE
        assert error.problem.startswith("The batch scheduling queue to which this task was submitted is full; ")
        other = these.ask(rows(1), name="other")
        await settled(other)
        assert (await refusal(these.ask(rows(1), name="third"))).code is Code.UNAVAILABLE
        await these.let_go()
        await asyncio.gather(waiting, other)
        await these.ask(rows(1))

    async def test_too_many_bytes_are_refused_at_once(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(bounds=Bounds(bytes=64, bytes_per_model=40))
        await these.hold()
        waiting = these.ask(rows(4))
        await settled(waiting)
        error = await refusal(these.ask(rows(1)))
        assert error.code is Code.RESOURCE_EXHAUSTED
        assert error.problem == (
            "The inputs of this request take 8 bytes, those being served 40, and at most 40 are kept"
        )
        other = these.ask(rows(1), name="other")
        await settled(other)
        await these.let_go()
        await asyncio.gather(waiting, other)
        assert these.scheduler.input_bytes == 0

    async def test_strings_count_by_their_length(self, make: Make, doubler: Any) -> None:
        servable = doubler(lambda inputs: {"y": inputs["x"]}, dtype=object)
        inputs = {"x": np.array([[b"a" * 60, b""]], object)}
        error = await refusal(make(bounds=Bounds(bytes_per_model=50)).predict(loaded(servable), "", inputs))
        assert "take 76 bytes" in error.problem


class TestGone:
    async def test_whose_caller_is_gone_is_not_computed(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await prove(these)
        await these.hold()
        tasks = [these.ask(rows(1, value)) for value in (1, 2, 3)]
        await settled(tasks)
        tasks[1].cancel()
        await settled(tasks)
        assert tasks[1].cancelled()
        assert these.scheduler.requests == 3
        await these.let_go()
        assert (await tasks[0])["y"].tolist() == [[2, 2]]
        assert (await tasks[2])["y"].tolist() == [[6, 6]]
        assert these.servable.sizes == [2]

    async def test_a_batch_that_everybody_left_is_not_computed(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await these.hold()
        tasks = [these.ask(rows(1)) for _ in range(3)]
        await settled(tasks)
        for task in tasks:
            task.cancel()
        await settled(tasks)
        await these.let_go()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert these.servable.calls == []
        assert (these.scheduler.requests, these.scheduler.input_bytes) == (0, 0)

    async def test_one_that_is_being_computed_counts_until_it_is_done(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await these.hold()
        these.tasks.pop().cancel()
        await settled(these)
        assert these.scheduler.requests == 1
        these.servable.go.set()
        await until(lambda: these.scheduler.requests == 0)

    async def test_a_servable_that_nobody_refers_to_is_freed(self, make: Make, doubler: Any) -> None:
        scheduler, servable = make(), doubler()
        await scheduler.predict(loaded(servable), "", rows(1))
        await until(lambda: len(scheduler._idle) == 2)
        freed = weakref.ref(servable)
        del servable
        gc.collect()
        assert freed() is None


class TestClose:
    async def test_what_runs_is_answered_and_what_waits_is_refused(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await these.hold()
        waiting = [these.ask(rows(1)) for _ in range(3)]
        await settled(waiting)
        closing = asyncio.create_task(these.scheduler.close())
        for task in waiting:
            error = await refusal(task)
            assert (error.code, error.problem) == (Code.UNAVAILABLE, "The server is stopping")
        assert not closing.done()
        these.servable.go.set()
        await closing
        assert (await these.tasks[0])["y"].tolist() == [[2, 2]]
        assert these.servable.calls == []
        assert (await refusal(these.ask(rows(1)))).problem == "The server is stopping"
        await these.scheduler.close()

    async def test_what_would_be_tried_again_is_refused(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd()
        await prove(these)
        await these.hold()
        tasks = [these.ask(rows(1)) for _ in range(2)]
        await settled(tasks)
        these.servable.failing = lambda inputs: len(inputs["x"]) > 1
        these.servable.begun.clear()
        these.servable.go.set()
        these.servable.go.clear()
        await asyncio.gather(*these.tasks)
        await until(lambda: these.servable.calls)
        closing = asyncio.create_task(these.scheduler.close())
        await settled(closing)
        these.servable.go.set()
        await closing
        for task in tasks:
            assert (await refusal(task)).problem == "The server is stopping"


class TestParameters:
    async def test_a_full_batch_does_not_wait(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(parameters=Parameters(4, batch_timeout_micros=3600 * 10**6, num_batch_threads=1))
        tasks = [these.ask(rows(count, count)) for count in (1, 3)]
        assert [(await task)["y"][0, 0] for task in tasks] == [2, 6]
        assert these.servable.sizes == [4]

    def test_a_batch_that_is_not_full_waits_for_the_timeout(
        self, run_with_clock: Callable[[Any], Any], doubler: Any
    ) -> None:
        async def story() -> None:
            loop: Any = asyncio.get_running_loop()
            parameters = Parameters(4, batch_timeout_micros=2 * 10**6, num_batch_threads=1)
            these = Crowd(Scheduler(parameters), doubler())
            first = these.ask(rows(1))
            await settled(first)
            loop.now += 1
            second = these.ask(rows(1))
            await settled(second)
            assert these.servable.calls == []
            loop.now += 1.001
            await asyncio.gather(first, second)
            assert these.servable.sizes == [2]
            await these.scheduler.close()

        run_with_clock(story())

    def test_a_batch_that_becomes_due_behind_an_overdue_one_is_not_forgotten(
        self, run_with_clock: Callable[[Any], Any], doubler: Any
    ) -> None:
        async def story() -> None:
            loop: Any = asyncio.get_running_loop()
            parameters = Parameters(4, batch_timeout_micros=2 * 10**6, num_batch_threads=1)
            these = Crowd(Scheduler(parameters), doubler())
            these.servable.go.clear()
            held = these.ask(rows(4))
            await until(these.servable.begun.is_set)
            overdue = these.ask(rows(1))
            await settled(overdue)
            loop.now += 3
            due_later = these.ask(rows(1), "other")
            await settled(due_later)
            these.servable.go.set()
            await asyncio.gather(held, overdue)
            await until(lambda: these.scheduler._idle)
            assert not due_later.done()
            loop.now += 3
            await due_later
            await these.scheduler.close()

        run_with_clock(story())

    async def test_with_the_clock_of_the_machine(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(parameters=Parameters(4, batch_timeout_micros=1000, num_batch_threads=2))
        for _ in range(3):
            tasks = [these.ask(rows(1, value)) for value in (1, 2)]
            assert [(await task)["y"][0, 0] for task in tasks] == [2, 4]
        assert sum(these.servable.sizes) == 6

    def test_a_timer_is_not_left_behind(self, run_with_clock: Callable[[Any], Any], doubler: Any) -> None:
        async def story() -> None:
            these = Crowd(Scheduler(Parameters(4, batch_timeout_micros=10**6, num_batch_threads=1)), doubler())
            waiting = these.ask(rows(1))
            await settled(waiting)
            await these.scheduler.close()
            assert (await refusal(waiting)).code is Code.UNAVAILABLE
            loop: Any = asyncio.get_running_loop()
            assert not [handle for handle in loop._scheduled if not handle.cancelled()]

        run_with_clock(story())

    async def test_too_large_a_request_is_refused(self, crowd: Callable[..., Crowd]) -> None:
        error = await refusal(crowd(parameters=Parameters(4)).ask(rows(5)))
        assert (error.code, error.problem) == (
            Code.INVALID_ARGUMENT,
            "Task size 5 is larger than maximum input batch size 4",
        )

    async def test_batches_that_wait_have_a_bound(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(parameters=Parameters(2, max_enqueued_batches=2, num_batch_threads=1))
        await these.hold()
        tasks = [these.ask(rows(count)) for count in (1, 2, 1, 1)]
        await settled(tasks)
        error = await refusal(tasks[3])
        assert (error.code, error.problem) == (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
            "max_enqueued_batches is 2",
        )
        await refusal(tasks[2])
        await these.let_go()
        await asyncio.gather(*tasks[:2])
        assert these.servable.sizes == [1, 2]

    async def test_threads_compute_at_once(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(parameters=Parameters(1, num_batch_threads=3))
        these.servable.go.clear()
        tasks = [these.ask(rows(1)) for _ in range(4)]
        await until(lambda: len(these.servable.calls) == 3)
        await settled(tasks)
        assert len(these.servable.calls) == 3
        these.servable.go.set()
        await asyncio.gather(*tasks)

    async def test_batches_are_padded_to_allowed_sizes(self, crowd: Callable[..., Crowd]) -> None:
        records: list[BatchRecord] = []
        parameters = Parameters(8, allowed_batch_sizes=(2, 8), num_batch_threads=1)
        these = crowd(parameters=parameters, observe=records.append)
        await these.hold()
        tasks = [these.ask(rows(count, count)) for count in (1, 2)]
        await settled(tasks)
        await these.let_go()
        assert [(await task)["y"].shape for task in tasks] == [(1, 2), (2, 2)]
        assert these.servable.calls[0]["x"][:, 0].tolist() == [1, 2, 2, 2, 2, 2, 2, 2]
        assert [(record.rows, record.padding) for record in records] == [(2, 1), (8, 5)]
        assert (await these.tasks[0])["y"].shape == (1, 2)

    async def test_shapes_are_padded_if_asked(self, crowd: Callable[..., Crowd], doubler: Any) -> None:
        servable = doubler(inputs={"x": (-1, -1)}, outputs={"y": (-1, -1)})
        these = crowd(servable, parameters=Parameters(8, pad_variable_length_inputs=True, num_batch_threads=1))
        await these.hold()
        short, long, empty = (these.ask({"x": np.full((1, length), length, np.float32)}) for length in (1, 3, 0))
        await settled(short)
        await these.let_go()
        assert (await short)["y"].tolist() == [[2, 2, 2]]
        assert (await long)["y"].tolist() == [[6, 6, 6]]
        assert (await empty)["y"].shape == (1, 0)
        assert these.servable.sizes == [2, 1]

    async def test_large_requests_are_split_if_asked(self, crowd: Callable[..., Crowd]) -> None:
        parameters = Parameters(8, enable_large_batch_splitting=True, max_execution_batch_size=3, num_batch_threads=1)
        these = crowd(parameters=parameters)
        await these.hold()
        small = these.ask(rows(1, 9))
        large = these.ask({"x": np.arange(16, dtype=np.float32).reshape(8, 2)})
        await settled(large)
        await these.let_go()
        assert (await small)["y"].tolist() == [[18, 18]]
        assert (await large)["y"].ravel().tolist() == list(range(0, 32, 2))
        assert these.servable.sizes == [3, 3, 3]

    async def test_split_requests_need_room_for_all_their_parts(self, crowd: Callable[..., Crowd]) -> None:
        parameters = Parameters(
            8,
            enable_large_batch_splitting=True,
            max_execution_batch_size=2,
            max_enqueued_batches=2,
            num_batch_threads=1,
        )
        these = crowd(parameters=parameters)
        await these.hold()
        first = these.ask(rows(1))
        await settled(first)
        error = await refusal(these.ask(rows(4)))
        assert (error.code, error.problem) == (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; task size is 4 but scheduling "
            "capacity is only 3 (num_enqueued_batches=1, max_enqueued_batches=2, open_batch_size=1, "
            "max_execution_batch_size=2)",
        )
        second = these.ask(rows(3))
        await settled(second)
        await these.let_go()
        await asyncio.gather(first, second)

    async def test_when_a_part_fails_the_others_are_not_computed(self, crowd: Callable[..., Crowd]) -> None:
        parameters = Parameters(8, enable_large_batch_splitting=True, max_execution_batch_size=2, num_batch_threads=1)
        these = crowd(parameters=parameters)
        these.servable.failing = lambda inputs: bool((inputs["x"] == 7).any())
        await these.hold()
        task = these.ask(rows(8, 7))
        await settled(task)
        await these.let_go()
        assert (await refusal(task)).code is Code.INTERNAL
        assert these.servable.sizes == [2]
        await until(lambda: these.scheduler.requests == 0)

    async def test_when_one_waits_in_parts_all_of_it_leaves(self, crowd: Callable[..., Crowd]) -> None:
        parameters = Parameters(8, enable_large_batch_splitting=True, max_execution_batch_size=2, num_batch_threads=1)
        these = crowd(parameters=parameters)
        await these.hold()
        task, other = these.ask(rows(7)), these.ask(rows(1))
        await settled(task)
        task.cancel()
        await settled(task)
        await these.let_go()
        await other
        assert these.servable.sizes == [1]

    @pytest.mark.parametrize(
        ("inputs", "text"),
        [
            ({"a": np.zeros(1), "b": np.zeros(2)}, "Batching Run() input tensors must have equal 0th-dimension size"),
            ({"a": np.zeros(()), "b": np.zeros(2)}, "Batching Run() input tensors must have at least one dimension"),
        ],
    )
    async def test_rows_must_be_countable(
        self, crowd: Callable[..., Crowd], doubler: Any, inputs: dict[str, Array], text: str
    ) -> None:
        servable = doubler(inputs={"a": None, "b": None}, dtype=np.float64)
        error = await refusal(crowd(servable, parameters=Parameters(4)).ask(inputs))
        assert (error.code, error.problem) == (Code.INVALID_ARGUMENT, text)

    @pytest.mark.parametrize("answer", [None, {"y": [1.0, 2.0]}, {"y": np.float32(1)}, SystemExit(3)], ids=str)
    async def test_a_model_that_misbehaves_costs_no_thread(
        self, crowd: Callable[..., Crowd], doubler: Any, answer: Any
    ) -> None:
        def misbehave(inputs: Any) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        these = crowd(doubler(misbehave))
        for _ in range(4):
            error = await asyncio.wait_for(refusal(these.ask(rows(1))), 20)
            assert error.code is Code.INTERNAL

    async def test_outputs_must_have_a_row_for_each(self, crowd: Callable[..., Crowd], doubler: Any) -> None:
        """Even of a request that is alone, as there."""
        these = crowd(doubler(lambda inputs: {"y": np.zeros((5, 2))}), parameters=Parameters(4))
        error = await refusal(these.ask(rows(1)))
        assert error.code is Code.FAILED_PRECONDITION
        assert error.problem.startswith("Batched output tensor's 0th dimension does not equal the sum of")

    async def test_one_that_breaks_the_model_does_not_break_its_neighbours(self, crowd: Callable[..., Crowd]) -> None:
        these = crowd(parameters=Parameters(4, num_batch_threads=1, max_enqueued_batches=1))
        these.servable.failing = lambda inputs: bool((inputs["x"] == 13).any())
        await these.hold()
        tasks = [these.ask(rows(1, value)) for value in (1, 13, 2)]
        await settled(tasks)
        await these.let_go()
        assert (await refusal(tasks[1])).code is Code.INTERNAL
        assert [(await tasks[index])["y"][0, 0] for index in (0, 2)] == [2, 4]
        assert these.servable.sizes == [3, 1, 1, 1]
