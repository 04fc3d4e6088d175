from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensconce.tfserving.messages import (
    ClassificationRequest,
)
from ensconce.tfserving.refusal import Code


def test_classify(model: Any, request_of: Any, classify: Any, listed: Any) -> None:
    response = classify(request_of(ClassificationRequest, 1.0, 0.0, None))
    assert listed(response.result) == [[("one", 1), ("two", 2)], [("one", 0), ("two", 0)], [("one", 2), ("two", 4)]]
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"
    assert model.asked == [("serving_default", ("classes", "scores"))]


def test_labels_or_scores_alone(request_of: Any, classify: Any, listed: Any) -> None:
    response = classify(request_of(ClassificationRequest, 1.0, signature_name="labels"))
    assert listed(response.result) == [[("one", 0), ("two", 0)]]
    response = classify(request_of(ClassificationRequest, 1.0, signature_name="scores"))
    assert listed(response.result) == [[("", 1), ("", 2)]]
    response = classify(request_of(ClassificationRequest, 1.0, signature_name="scores_more"))
    assert listed(response.result) == [[("", 1), ("", 2)]]


def test_every_example_may_have_labels_of_its_own(model: Any, request_of: Any, classify: Any, listed: Any) -> None:
    model.outputs["classes"] = np.array([[b"a", b""], [b"long" * 100, b"\xc3\xa9"], [b"a", b""]], object)
    response = classify(request_of(ClassificationRequest, 1.0, 2.0, 3.0))
    assert listed(response.result) == [
        [("a", 1), ("", 2)],
        [("long" * 100, 2), ("é", 4)],
        [("a", 3), ("", 6)],
    ]


def test_no_classes_at_all(model: Any, request_of: Any, classify: Any, listed: Any) -> None:
    model.outputs |= {"classes": np.empty((1, 0), object), "scores": np.empty((1, 0), np.float32)}
    assert listed(classify(request_of(ClassificationRequest, 1.0)).result) == [[]]


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
def test_signatures_that_cannot_classify(name: str, text: str, request_of: Any, classify: Any, refused: Any) -> None:
    code, problem = refused(classify, request_of(ClassificationRequest, 1.0, signature_name=name))
    assert code is Code.INVALID_ARGUMENT
    assert problem.startswith(text)


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
def test_outputs_that_are_no_classes(
    model: Any, outputs: Any, text: str, request_of: Any, classify: Any, refused: Any
) -> None:
    model.outputs |= outputs
    assert refused(classify, request_of(ClassificationRequest, 1.0)) == (Code.INVALID_ARGUMENT, text)


def test_a_label_must_be_text(model: Any, request_of: Any, classify: Any, refused: Any) -> None:
    model.outputs["classes"] = np.array([[b"\xff", b"b"]], object)
    assert refused(classify, request_of(ClassificationRequest, 1.0)) == (
        Code.INTERNAL,
        "The model's label of a class is no UTF-8 text",
    )


def test_what_the_model_refuses_is_refused(request_of: Any, classify: Any, refused: Any) -> None:
    bad = request_of(ClassificationRequest, 1.0)
    bad.input.example_list.examples[0].features.feature["x"].float_list.value.append(2)
    code, text = refused(classify, bad)
    assert code is Code.INVALID_ARGUMENT
    assert text.endswith("Values size: 2 but output shape: []")


def test_a_context_is_bounded(request_of: Any, classify: Any, refused: Any) -> None:
    asked = request_of(ClassificationRequest, *[1.0] * 100, context=1.0)
    assert "take more than" in refused(classify, asked, tensor_bytes=2000)[1]
