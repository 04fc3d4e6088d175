from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ensconce.serving import answers_examples
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.messages import (
    ClassificationRequest,
    MultiInferenceRequest,
    RegressionRequest,
    UnreadExamplesRequest,
    UnreadMultiInferenceRequest,
)
from ensconce.tfserving.refusal import Code, RequestError, invalid
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


class Slow(Here):
    """Never has done."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def predict(self, *_args: Any, **_options: Any) -> dict[str, Array]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError


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


def request(kind: Any, *values: float | None, signature_name: str = "", context: float | None = None) -> Any:
    made = kind()
    made.model_spec.name = "m"
    made.model_spec.signature_name = signature_name
    fill(made.input, *values, context=context)
    return made


def multi(*tasks: tuple[str, str, str], values: tuple[float, ...] = (1.0, 3.0)) -> Any:
    made = MultiInferenceRequest()
    for name, signature_name, method in tasks:
        task = made.tasks.add(method_name=method)
        task.model_spec.name = name
        task.model_spec.signature_name = signature_name
    fill(made.input, *values)
    return made


def answered(
    answer: Callable[..., Any], manager: ModelManager, asked: Any, scheduler: Any = None, **options: Any
) -> Any:
    options = {"tensor_bytes": 1 << 20} | options
    return asyncio.run(answer(manager, scheduler or Here(), asked, **options))


def classify(manager: ModelManager, asked: Any, **options: Any) -> Any:
    return answered(answers_examples.answer_classify, manager, asked, **options)


def regress(manager: ModelManager, asked: Any, **options: Any) -> Any:
    return answered(answers_examples.answer_regress, manager, asked, **options)


def infer(manager: ModelManager, asked: Any, **options: Any) -> Any:
    return answered(answers_examples.answer_multi_inference, manager, asked, **options)


def listed(result: Any) -> list[list[tuple[str, float]]]:
    return [[(each.label, each.score) for each in row.classes] for row in result.classifications]


def refused(answer: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Code, str]:
    with pytest.raises(RequestError) as caught:
        answer(*arguments, **options)
    return caught.value.code, caught.value.problem


def test_classify(manager: ModelManager, model: Doubling) -> None:
    response = classify(manager, request(ClassificationRequest, 1.0, 0.0, None))
    assert listed(response.result) == [[("one", 1), ("two", 2)], [("one", 0), ("two", 0)], [("one", 2), ("two", 4)]]
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"
    assert model.asked == [("serving_default", ("classes", "scores"))]


def test_labels_or_scores_alone(manager: ModelManager) -> None:
    response = classify(manager, request(ClassificationRequest, 1.0, signature_name="labels"))
    assert listed(response.result) == [[("one", 0), ("two", 0)]]
    response = classify(manager, request(ClassificationRequest, 1.0, signature_name="scores"))
    assert listed(response.result) == [[("", 1), ("", 2)]]
    response = classify(manager, request(ClassificationRequest, 1.0, signature_name="scores_more"))
    assert listed(response.result) == [[("", 1), ("", 2)]]


def test_every_example_may_have_labels_of_its_own(manager: ModelManager, model: Doubling) -> None:
    model.outputs["classes"] = np.array([[b"a", b""], [b"long" * 100, b"\xc3\xa9"], [b"a", b""]], object)
    response = classify(manager, request(ClassificationRequest, 1.0, 2.0, 3.0))
    assert listed(response.result) == [
        [("a", 1), ("", 2)],
        [("long" * 100, 2), ("é", 4)],
        [("a", 3), ("", 6)],
    ]


def test_no_classes_at_all(manager: ModelManager, model: Doubling) -> None:
    model.outputs |= {"classes": np.empty((1, 0), object), "scores": np.empty((1, 0), np.float32)}
    assert listed(classify(manager, request(ClassificationRequest, 1.0)).result) == [[]]


def test_regress(manager: ModelManager, model: Doubling) -> None:
    asked = request(RegressionRequest, 1.0, -10.0, signature_name="regress")
    response = regress(manager, asked)
    assert [each.value for each in response.result.regressions] == [11, 0]
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "regress"
    model.outputs["outputs"] = np.array([np.nan, np.inf], np.float32)
    values = [each.value for each in regress(manager, asked).result.regressions]
    assert np.isnan(values[0])
    assert values[1] == np.inf


def test_the_context_is_every_example_s(manager: ModelManager) -> None:
    asked = request(RegressionRequest, 1.0, None, signature_name="regress", context=5.0)
    assert [each.value for each in regress(manager, asked).result.regressions] == [11, 15]


def test_requests_may_come_unread(manager: ModelManager) -> None:
    asked = request(ClassificationRequest, 1.0)
    unread = UnreadExamplesRequest.FromString(asked.SerializeToString())
    assert classify(manager, unread) == classify(manager, asked)
    several = multi(("m", "", CLASSIFY_METHOD), ("m", "regress", REGRESS_METHOD))
    unread = UnreadMultiInferenceRequest.FromString(several.SerializeToString())
    assert infer(manager, unread) == infer(manager, several)


def test_multi_inference(manager: ModelManager, model: Doubling) -> None:
    asked = multi(("m", "regress", REGRESS_METHOD), ("m", "", CLASSIFY_METHOD))
    asked.tasks[0].model_spec.version.value = 3
    first, second = infer(manager, asked).results
    assert [each.value for each in first.regression_result.regressions] == [11, 13]
    assert first.model_spec.signature_name == "regress"
    assert listed(second.classification_result) == [[("one", 1), ("two", 2)], [("one", 3), ("two", 6)]]
    # The first task's version is everybody's.
    assert [each.model_spec.version.value for each in (first, second)] == [3, 3]
    assert second.model_spec.name == "m"
    assert second.model_spec.signature_name == "serving_default"


def test_which_model() -> None:
    manager = ModelManager()
    assert refused(classify, manager, ClassificationRequest()) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(regress, manager, RegressionRequest()) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(classify, manager, request(ClassificationRequest, 1.0))[0] is Code.NOT_FOUND
    nameless = (Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    assert refused(infer, manager, MultiInferenceRequest()) == nameless
    assert refused(infer, manager, multi(("", "", CLASSIFY_METHOD))) == nameless


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "No signature was found with the name: none"),
        ("three_outputs", "Expected one or two output Tensors, found 3"),
        ("two_inputs", "Expected one input Tensor."),
        ("another_input", "No classification inputs found in SignatureDef: inputs {"),
        (
            "another_output",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: inputs {",
        ),
    ],
)
def test_signatures_that_cannot_classify(manager: ModelManager, name: str, text: str) -> None:
    code, problem = refused(classify, manager, request(ClassificationRequest, 1.0, signature_name=name))
    assert code is Code.INVALID_ARGUMENT
    assert problem.startswith(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "No signature was found with the name: none"),
        ("", "Expected one output Tensor."),
        ("two_inputs", "Expected one input Tensor."),
        ("another_input", "No regression inputs found in SignatureDef: inputs {"),
        ("another_output", "No regression outputs found in SignatureDef: inputs {"),
    ],
)
def test_signatures_that_cannot_regress(manager: ModelManager, name: str, text: str) -> None:
    code, problem = refused(regress, manager, request(RegressionRequest, 1.0, signature_name=name))
    assert code is Code.INVALID_ARGUMENT
    assert problem.startswith(text)


def test_method_names_are_looked_at_where_that_is_asked_for(manager: ModelManager) -> None:
    asked = request(ClassificationRequest, 1.0, signature_name="scores")
    assert refused(classify, manager, asked, check_method_name=True) == (
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    assert refused(regress, manager, request(RegressionRequest, 1.0), check_method_name=True) == (
        Code.INVALID_ARGUMENT,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify",
    )
    several = multi(("m", "scores", CLASSIFY_METHOD))
    assert "Was: tensorflow/serving/predict" in refused(infer, manager, several, check_method_name=True)[1]
    assert classify(manager, request(ClassificationRequest, 1.0), check_method_name=True)


def test_no_examples(manager: ModelManager) -> None:
    empty = (Code.INVALID_ARGUMENT, "Input is empty.")
    assert refused(classify, manager, request(ClassificationRequest)) == empty
    assert refused(regress, manager, request(RegressionRequest, signature_name="regress")) == empty
    assert refused(infer, manager, multi(("m", "", CLASSIFY_METHOD), values=())) == empty


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"classes": np.empty((2, 2), object)}, "Expected classes output batch size of 1. Got: 2"),
        ({"scores": np.zeros((2, 2), np.float32)}, "Expected scores output batch size of 1. Got: 2"),
        ({"classes": np.empty(1, object)}, "Expected Tensor shape: [batch_size num_classes] but got [1]"),
        (
            {"scores": np.zeros((1, 2, 1), np.float32)},
            "Expected Tensor shape: [batch_size num_classes] but got [1,2,1]",
        ),
        ({"classes": np.zeros((1, 2), np.int64)}, "Expected classes Tensor of DT_STRING. Got: DT_INT64"),
        ({"scores": np.zeros((1, 2), np.float64)}, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ({"scores": np.zeros((1, 3), np.float32)}, "Tensors class and score should match in dim_size(1). Got 2 vs. 3"),
    ],
)
def test_outputs_that_are_no_classes(manager: ModelManager, model: Doubling, outputs: Any, text: str) -> None:
    model.outputs |= outputs
    assert refused(classify, manager, request(ClassificationRequest, 1.0)) == (Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            np.zeros((1, 2), np.float32),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
        ),
        (np.float32(1), "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
        (np.zeros((2, 1), np.float32), "Input batch size did not match output batch size: 1 vs. 2"),
        (np.zeros(1, np.int32), "Expected output Tensor of DT_FLOAT.  Got: DT_INT32"),
    ],
)
def test_outputs_that_are_no_regressions(manager: ModelManager, model: Doubling, values: Any, text: str) -> None:
    model.outputs["outputs"] = np.asarray(values)
    asked = request(RegressionRequest, 1.0, signature_name="regress")
    assert refused(regress, manager, asked) == (Code.INVALID_ARGUMENT, text)


def test_a_label_must_be_text(manager: ModelManager, model: Doubling) -> None:
    model.outputs["classes"] = np.array([[b"\xff", b"b"]], object)
    assert refused(classify, manager, request(ClassificationRequest, 1.0)) == (
        Code.INTERNAL,
        "The model's label of a class is no UTF-8 text",
    )


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        (
            [("m", "", CLASSIFY_METHOD), ("", "regress", REGRESS_METHOD)],
            Code.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("m", "", CLASSIFY_METHOD), ("other", "regress", REGRESS_METHOD)],
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("m", "", CLASSIFY_METHOD), ("m", "serving_default", CLASSIFY_METHOD)],
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: serving_default",
        ),
        ([("m", "no", CLASSIFY_METHOD)], Code.INVALID_ARGUMENT, "Requested signature not found in model graph: no"),
        (
            [("m", "", PREDICT_METHOD)],
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([("m", "", REGRESS_METHOD)], Code.INVALID_ARGUMENT, "Expected one output Tensor."),
    ],
)
def test_rules_of_multi_inference(manager: ModelManager, tasks: Any, code: Code, text: str) -> None:
    assert refused(infer, manager, multi(*tasks)) == (code, text)


def test_what_the_model_refuses_is_refused(manager: ModelManager, model: Doubling) -> None:
    bad = request(ClassificationRequest, 1.0)
    bad.input.example_list.examples[0].features.feature["x"].float_list.value.append(2)
    code, text = refused(classify, manager, bad)
    assert code is Code.INVALID_ARGUMENT
    assert text.endswith("Values size: 2 but output shape: []")


def test_a_context_is_bounded(manager: ModelManager) -> None:
    asked = request(ClassificationRequest, *[1.0] * 100, context=1.0)
    assert "take more than" in refused(classify, manager, asked, tensor_bytes=2000)[1]


def test_no_task_is_needed_where_nothing_waits(manager: ModelManager) -> None:
    asked = request(ClassificationRequest, 1.0)
    answering = answers_examples.answer_classify(manager, Here(), asked, tensor_bytes=1000)
    with pytest.raises(StopIteration) as answered:
        answering.send(None)
    assert listed(answered.value.value.result) == [[("one", 1), ("two", 2)]]


def test_nobody_waits_beyond_the_deadline(manager: ModelManager) -> None:
    slow = Slow()
    asked = multi(("m", "", CLASSIFY_METHOD), ("m", "regress", REGRESS_METHOD))
    assert refused(infer, manager, asked, scheduler=slow, deadline=0)[0] is Code.DEADLINE_EXCEEDED
    assert slow.cancelled == 0
    soon = time.monotonic() + 0.01
    assert refused(infer, manager, asked, scheduler=slow, deadline=soon)[0] is Code.DEADLINE_EXCEEDED
    asked = request(ClassificationRequest, 1.0)
    assert refused(classify, manager, asked, scheduler=slow, deadline=0)[0] is Code.DEADLINE_EXCEEDED


def test_when_one_task_fails_the_others_are_given_up(manager: ModelManager) -> None:
    class Failing(Slow):
        async def predict(self, *args: Any, **options: Any) -> dict[str, Array]:
            if args[1] == "regress":
                raise invalid("no")
            return await super().predict(*args, **options)

    slow = Failing()
    asked = multi(("m", "", CLASSIFY_METHOD), ("m", "regress", REGRESS_METHOD))
    assert refused(infer, manager, asked, scheduler=slow) == (Code.INVALID_ARGUMENT, "no")
    assert slow.cancelled == 1
