"""A model of examples, its requests, and what answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ensconce.serving.answers_examples import (
    predict_all,
    read_classify,
    read_multi_inference,
    read_regress,
    write_classify,
    write_multi_inference,
    write_regress,
)
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.messages import MultiInferenceRequest
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import PREDICT_METHOD, Signature, TensorSpec
from ensconce.tfserving.tensor import Array

FEATURES = {"x": FeatureSpec("x", dtype_named("DT_FLOAT"), (), (2.0,))}
STRINGS = TensorSpec("examples:0", dtype_named("DT_STRING"), (-1,))
FLOATS = TensorSpec("floats:0", dtype_named("DT_FLOAT"), (-1, 2))
COLUMN = TensorSpec("column:0", dtype_named("DT_FLOAT"), (-1, 1))


def signature(name: str, method: str, outputs: dict[str, TensorSpec], *inputs: str) -> Signature:
    return Signature(name, method, dict.fromkeys(inputs or ("inputs",), STRINGS), dict(sorted(outputs.items())))


SIGNATURES = {
    each.name: each
    for each in (
        signature("serving_default", CLASSIFY_METHOD, {"classes": STRINGS, "scores": FLOATS}),
        signature("labels", CLASSIFY_METHOD, {"classes": STRINGS}),
        signature("scores", PREDICT_METHOD, {"scores": FLOATS}),
        signature("scores_more", CLASSIFY_METHOD, {"scores": FLOATS, "more": FLOATS}),
        signature("regress", REGRESS_METHOD, {"outputs": COLUMN}),
        signature("three_outputs", CLASSIFY_METHOD, {"classes": STRINGS, "scores": FLOATS, "x": FLOATS}),
        signature("two_inputs", CLASSIFY_METHOD, {"scores": FLOATS}, "inputs", "x"),
        signature("another_input", CLASSIFY_METHOD, {"scores": FLOATS}, "x"),
        signature("another_output", CLASSIFY_METHOD, {"y": FLOATS}),
    )
}


@dataclass
class Doubling:
    """Scores are [x, 2x], and the regression is x + 10; ``outputs`` stands for any of them where it has one."""

    outputs: dict[str, Array] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    signatures: Mapping[str, Signature] = field(default_factory=lambda: SIGNATURES)

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        self.asked.append((signature_name, tuple(output_filter)))
        x = parse_examples(inputs["inputs"].tolist(), FEATURES)["x"]
        labels = np.empty((len(x), 2), object)
        labels[:] = [b"one", b"two"]
        scores = np.stack([x, 2 * x], 1)
        made = {"classes": labels, "scores": scores, "outputs": x[:, None] + np.float32(10)} | self.outputs
        return {name: made[name] for name in output_filter}


class Here:
    """Computes at once, in the loop."""

    async def predict(
        self,
        loaded: LoadedServable,
        signature_name: str,
        inputs: Mapping[str, Array],
        output_filter: Sequence[str] = (),
    ) -> dict[str, Array]:
        return loaded.servable.predict(signature_name, inputs, output_filter)


@pytest.fixture
def model() -> Doubling:
    return Doubling()


@pytest.fixture
def manager(model: Doubling) -> ModelManager:
    manager = ModelManager()
    manager.add("m", 3, model)
    manager.add("m", 7, model)
    manager.add("other", 1, model)
    return manager


def fill(given: Any, *values: float | None, context: float | None = None) -> None:
    held = given.example_list if context is None else given.example_list_with_context
    if context is not None:
        held.context.features.feature["x"].float_list.value.append(context)
    for value in values:
        example = held.examples.add()
        if value is not None:
            example.features.feature["x"].float_list.value.append(value)


@pytest.fixture
def request_of() -> Callable[..., Any]:
    """Makes a request of a kind, with an example for each value; None is one without features."""

    def make(kind: Any, *values: float | None, signature_name: str = "", context: float | None = None) -> Any:
        made = kind()
        made.model_spec.name = "m"
        made.model_spec.signature_name = signature_name
        fill(made.input, *values, context=context)
        return made

    return make


@pytest.fixture
def multi() -> Callable[..., Any]:
    """Makes a ``MultiInferenceRequest`` of tasks: model, signature, method."""

    def make(*tasks: tuple[str, str, str], values: tuple[float, ...] = (1.0, 3.0)) -> Any:
        made = MultiInferenceRequest()
        for name, signature_name, method in tasks:
            task = made.tasks.add(method_name=method)
            task.model_spec.name = name
            task.model_spec.signature_name = signature_name
        fill(made.input, *values)
        return made

    return make


Answer = Callable[..., Any]


def answerer(manager: ModelManager, read: Callable[..., Any], write: Callable[..., Any]) -> Answer:
    def answer(request: Any, **options: Any) -> Any:
        asked = read(manager, request, **{"tensor_bytes": 1 << 20} | options)
        [outputs] = asyncio.run(predict_all(Here(), [asked]))
        return write(asked, outputs)

    return answer


@pytest.fixture
def classify(manager: ModelManager) -> Answer:
    return answerer(manager, read_classify, write_classify)


@pytest.fixture
def regress(manager: ModelManager) -> Answer:
    return answerer(manager, read_regress, write_regress)


@pytest.fixture
def infer(manager: ModelManager) -> Answer:
    def answer(request: Any, scheduler: Any = None, **options: Any) -> Any:
        tasks = read_multi_inference(manager, request, **{"tensor_bytes": 1 << 20} | options)
        outputs = asyncio.run(predict_all(scheduler or Here(), [task.prediction for task in tasks]))
        return write_multi_inference(tasks, outputs)

    return answer


@pytest.fixture
def listed() -> Callable[[Any], list[list[tuple[str, float]]]]:
    """The classes of a result, as labels with scores."""

    def rows(result: Any) -> list[list[tuple[str, float]]]:
        return [[(each.label, each.score) for each in row.classes] for row in result.classifications]

    return rows


@pytest.fixture
def refused() -> Callable[..., tuple[Code, str]]:
    def call(answer: Answer, *arguments: Any, **options: Any) -> tuple[Code, str]:
        with pytest.raises(RequestError) as caught:
            answer(*arguments, **options)
        return caught.value.code, caught.value.problem

    return call
