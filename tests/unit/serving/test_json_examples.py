from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.json_examples import (
    answer_examples_json,
    classes_to_json,
    examples_request_from_json,
    regressions_to_json,
)
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD, Classes
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.inputs import examples_of
from ensconce.tfserving.messages import Example, ModelSpec
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import Array

SPEC = ModelSpec(name="m")


def read(document: Any) -> list[dict[str, Any]]:
    """The examples of a body, each as the values of its features."""
    request = examples_request_from_json(SPEC, json.dumps(document).encode())
    examples = [Example.FromString(each) for each in examples_of(request.input)]
    return [
        {
            name: list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else None
            for name, feature in example.features.feature.items()
        }
        for example in examples
    ]


def refusal(document: Any) -> str:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(RequestError) as caught:
        examples_request_from_json(SPEC, body)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.problem


def test_values_and_lists_of_each_type() -> None:
    example = {
        "f": 1.5,
        "fs": [1.0, -2.5],
        "i": 3,
        "is": [1, -(2**63)],
        "b": True,
        "bs": [False, 2],
        "s": "é",
        "ss": ["a", {"b64": "/wA="}],
        "none": [],
        "great": 10**30,
    }
    assert read({"examples": [example]}) == [
        {
            "f": [1.5],
            "fs": [1.0, -2.5],
            "i": [3],
            "is": [1, -(2**63)],
            "b": [1],
            "bs": [0, 2],
            "s": ["é".encode()],
            "ss": [b"a", b"\xff\x00"],
            "none": None,
            "great": [float(np.float32(1e30))],
        }
    ]


def test_floats_that_are_none() -> None:
    [example] = read({"examples": [{"x": [float("nan"), float("-inf"), 1e300]}]})
    assert np.isnan(example["x"][0])
    assert example["x"][1:] == [-np.inf, np.inf]


def test_context_and_signature() -> None:
    document = {"signature_name": "s", "context": {"a": 1, "b": 2}, "examples": [{"b": 3}, {}]}
    assert read(document) == [{"a": [1], "b": [3]}, {"a": [1], "b": [2]}]
    request = examples_request_from_json(SPEC, json.dumps(document).encode())
    assert request.model_spec.name == "m"
    assert request.model_spec.signature_name == "s"
    assert SPEC.signature_name == ""


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
            | st.lists(st.text(max_size=9), min_size=1)
            | st.lists(st.floats(width=32, allow_nan=False), min_size=1),
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_was_written_is_read(examples: list[dict[str, list[Any]]]) -> None:
    wanted = [
        {name: [v.encode() if isinstance(v, str) else v for v in values] for name, values in example.items()}
        for example in examples
    ]
    assert read({"examples": examples}) == wanted


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        ([], "JSON Value: [] Is not object"),
        ({}, "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ({"examples": 1}, "JSON Value: {\"examples\": 1} Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "JSON Value: {\"examples\": []} 'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [[]]}, "Example must be JSON object but got JSON Array"),
        ({"examples": ["a"]}, "Example must be JSON object but got JSON String"),
        ({"examples": [None]}, "Example must be JSON object but got JSON Null"),
        ({"examples": [True]}, "Example must be JSON object but got JSON True"),
        ({"examples": [{}], "context": False}, "Example must be JSON object but got JSON False"),
        (
            {"examples": [{}], "signature_name": 1},
            'JSON Value: {"examples": [{}], "signature_name": 1} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"a": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": {"b64": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": [1, 2.5]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": [2.5, 1]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"x": 10**400}]}, "Feature: x has a number that is out of range"),
        ({"examples": [{"x": {"b64": "*"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": {"b64": "é"}}]}, "Unable to base64 decode"),
        ({"examples": [{"\ud800": 1}]}, "JSON Value: a string holds half a surrogate pair, which is no text"),
        ({"examples": [{"x": "\ud800"}]}, "JSON Value: a string holds half a surrogate pair, which is no text"),
    ],
)
def test_refusals(document: Any, text: str) -> None:
    assert refusal(document) == text


def test_results() -> None:
    labels = np.array([[b"one", b"zwei"], [b"", "é".encode()]], object)
    scores = np.array([[0.1, 1], [np.nan, np.inf]], np.float32)
    assert classes_to_json(Classes(labels, scores)) == (
        b'{"results":[[["one",0.1],["zwei",1.0]],[["",NaN],["\\u00e9",Infinity]]]}'
    )
    assert classes_to_json(Classes(None, scores[:1])) == b'{"results":[[["",0.1],["",1.0]]]}'
    assert classes_to_json(Classes(labels[:1], None)) == b'{"results":[[["one",0.0],["zwei",0.0]]]}'
    assert classes_to_json(Classes(np.empty((1, 0), object), None)) == b'{"results":[[]]}'
    assert regressions_to_json(np.array([0.1, -2], np.float32)) == b'{"results":[0.1,-2.0]}'
    with pytest.raises(RequestError, match="no UTF-8"):
        classes_to_json(Classes(np.array([[b"\xff"]], object), None))


class Constant:
    """Says the same of every example."""

    def __init__(self) -> None:
        strings, floats = (TensorSpec("t", dtype_named(name), (-1,)) for name in ("DT_STRING", "DT_FLOAT"))
        self.signatures = {
            "serving_default": Signature("serving_default", CLASSIFY_METHOD, {"inputs": strings}, {"scores": floats}),
            "regress": Signature("regress", REGRESS_METHOD, {"inputs": strings}, {"outputs": floats}),
        }

    def predict(
        self, _signature: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        rows = len(inputs["inputs"])
        made = {"scores": np.full((rows, 2), 0.5, np.float32), "outputs": np.full(rows, 7, np.float32)}
        return {name: made[name] for name in output_filter}


class Here:
    async def predict(
        self, loaded: LoadedServable, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str]
    ) -> dict[str, Array]:
        return loaded.servable.predict(signature_name, inputs, output_filter)


def test_bodies_are_answered_with_bodies() -> None:
    manager = ModelManager()
    manager.add("m", 1, Constant())

    def answer(method: str, check: bool = False, **document: Any) -> bytes:
        body = json.dumps({"examples": [{"x": 1}, {}]} | document).encode()
        scheduler: Any = Here()
        return asyncio.run(
            answer_examples_json(method, manager, scheduler, SPEC, body, tensor_bytes=1 << 20, check_method_name=check)
        )

    assert answer("classify") == b'{"results":[[["",0.5],["",0.5]],[["",0.5],["",0.5]]]}'
    assert answer("regress", signature_name="regress") == b'{"results":[7.0,7.0]}'
    with pytest.raises(RequestError, match="outputs to contain at least one"):
        answer("classify", signature_name="regress")
    with pytest.raises(RequestError, match="No regression outputs"):
        answer("regress")
    with pytest.raises(RequestError, match="method_name to be tensorflow/serving/regress"):
        answer("regress", check=True)
    # Read in a thread.
    large = answer("regress", signature_name="regress", examples=[{"x": "a" * 100}] * 500)
    assert len(json.loads(large)["results"]) == 500


def test_names_are_told_in_one_line() -> None:
    assert refusal({"examples": [{"a\nb" + "c" * 1000: None}]}).startswith(r"Feature: a\nbccc")
    assert len(refusal({"examples": [{"a\nb" + "c" * 1000: None}]})) < 400
