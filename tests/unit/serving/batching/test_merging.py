"""Any requests, merged, padded and split in any way, give what each gives alone."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.batching.scheduler import BatchRecord, Scheduler
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import Array

FLOAT, STRING = dtype_named("DT_FLOAT"), dtype_named("DT_STRING")


class Rowwise:
    """Knows two inputs of unequal shape and type, and treats each row by itself, whatever its length."""

    def __init__(self) -> None:
        inputs = {"s": TensorSpec("s", STRING, (-1,)), "x": TensorSpec("x", FLOAT, (-1, -1))}
        outputs = {"first": TensorSpec("first", FLOAT, (-1,)), "upper": TensorSpec("upper", STRING, (-1,))}
        self.signatures = {"serving_default": Signature("serving_default", "m", inputs, outputs)}

    def predict(self, name: str, inputs: Any, output_filter: Any = ()) -> dict[str, Array]:
        if inputs["s"].tolist().count(b"poison"):
            raise RequestError(Code.INVALID_ARGUMENT, "poison")
        upper = np.array([item.upper() for item in inputs["s"].tolist()], object)
        # Of what padding leaves alone: the first column, which is every row's own.
        outputs = {"first": inputs["x"][:, 0] * 3, "upper": upper}
        return {each: outputs[each] for each in output_filter or sorted(outputs)}


@st.composite
def parameters_of_any_kind(draw: st.DrawFn) -> Parameters | None:
    if draw(st.booleans()):
        return None
    execution = draw(st.integers(1, 6))
    splits = draw(st.booleans())
    most = draw(st.integers(execution, 12)) if splits else draw(st.integers(6, 12))
    end = execution if splits else most
    allowed = draw(st.sets(st.integers(1, end))) | {end}
    return Parameters(
        max_batch_size=most,
        max_enqueued_batches=1000,
        num_batch_threads=draw(st.integers(1, 3)),
        allowed_batch_sizes=tuple(sorted(allowed)) if draw(st.booleans()) else (),
        pad_variable_length_inputs=draw(st.booleans()),
        enable_large_batch_splitting=splits,
        max_execution_batch_size=execution if splits else None,
    )


a_request = st.tuples(
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([(), ("first",), ("upper", "first")]),
    st.sampled_from([False] * 9 + [True]),
    st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(parameters_of_any_kind(), st.lists(a_request, min_size=1, max_size=30), st.integers(0, 99))
def test_merged_is_as_single(parameters: Parameters | None, requests: list[Any], seed: int) -> None:
    async def story() -> None:
        random = Random(seed)
        records: list[BatchRecord] = []
        scheduler = Scheduler(parameters, observe=records.append)
        servable = Rowwise()
        loaded = LoadedServable("m", 1, servable)

        async def ask(rows: int, width: int, outputs: Any, poisoned: bool, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            strings = [b"poison" if poisoned else b"%d" % random.randrange(1000) for _ in range(rows)]
            numbers = [[random.random() for _ in range(width)] for _ in range(rows)]
            inputs = {"s": np.array(strings, object), "x": np.array(numbers, np.float32)}
            limit = parameters.max_batch_size if parameters is not None else rows
            if poisoned or rows > limit:
                with pytest.raises(RequestError, match="poison" if rows <= limit else "larger than"):
                    await scheduler.predict(loaded, "", inputs, outputs)
                return
            got = await scheduler.predict(loaded, "", inputs, outputs)
            alone = servable.predict("", inputs, outputs)
            assert got.keys() == alone.keys()
            for name in alone:
                assert got[name].dtype == alone[name].dtype
                np.testing.assert_array_equal(got[name], alone[name])

        await asyncio.gather(*(ask(*request) for request in requests))
        await scheduler.close()
        assert (scheduler.requests, scheduler.input_bytes) == (0, 0)
        assert not scheduler._queues._lanes
        for record in records if parameters is not None else []:
            assert record.rows == parameters.padded(record.rows) <= parameters.max_batch_size

    asyncio.run(story())


@settings(max_examples=60, deadline=None)
@given(parameters_of_any_kind(), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=30))
def test_whoever_leaves_leaves_nothing_behind(parameters: Parameters | None, requests: list[Any]) -> None:
    async def story() -> None:
        scheduler = Scheduler(parameters)
        loaded = LoadedServable("m", 1, Rowwise())
        tasks = []
        for rows, turns in requests:
            inputs = {"s": np.array([b"s"] * rows, object), "x": np.zeros((rows, 2), np.float32)}
            tasks.append(asyncio.create_task(scheduler.predict(loaded, "", inputs)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns == 3:
                tasks[rows % len(tasks)].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, (dict, RequestError, asyncio.CancelledError)) for each in done)
        await scheduler.close()
        assert (scheduler.requests, scheduler.input_bytes) == (0, 0)
        assert not scheduler._queues._lanes

    asyncio.run(story())
