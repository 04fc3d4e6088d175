from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.examples import FeatureSpec
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import (
    MAX_AXIS,
    PREDICT_METHOD,
    Signature,
    TensorSpec,
    find_signature,
    parse_bindings,
    parse_signatures,
)

FLOAT = {"tensor": "x:0", "dtype": "DT_FLOAT", "shape": [-1, 2]}
TWO = {
    "method_name": "tensorflow/serving/predict",
    "inputs": {"b": {**FLOAT, "tensor": "b:0", "dtype": "DT_INT64", "shape": None}, "a": FLOAT},
    "outputs": {"y": FLOAT, "x": FLOAT},
}


def parse(entry: Any = TWO, **more: Any) -> dict[str, Signature]:
    return parse_signatures(json.dumps({"signatures": {"serving_default": entry}, **more}).encode())


@pytest.fixture
def two() -> Signature:
    return parse()["serving_default"]


def changed(**fields: Any) -> dict[str, Any]:
    return {**TWO, "inputs": {"a": {**FLOAT, **fields}}}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"entry": {**TWO, "extra": 1}}, "signatures.serving_default.extra"),
        ({"more": 1}, "more"),
        ({"precision": "int8"}, "precision"),
        ({"entry": {**TWO, "graph": "../model"}}, "signatures.serving_default.graph"),
        ({"entry": {**TWO, "examples": {"features": {}}}}, "signatures.serving_default.examples.features"),
        ({"entry": {**TWO, "inputs": {}}}, "signatures.serving_default.inputs"),
        ({"entry": changed(dtype="float32")}, "signatures.serving_default.inputs.a.dtype"),
        ({"entry": changed(dtype="DT_RESOURCE")}, "signatures.serving_default.inputs.a.dtype"),
        ({"entry": changed(shape=[-2])}, "signatures.serving_default.inputs.a.shape"),
        ({"entry": changed(shape=["1"])}, "signatures.serving_default.inputs.a.shape.0"),
        ({"entry": changed(tensor="")}, "signatures.serving_default.inputs.a.tensor"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(data: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(**data)
    assert caught.value.check == "engine.signatures"
    assert caught.value.found == where


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"signatures": {}}', b"\xff", b"[" * 100_000])
def test_what_is_no_signature_file_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_signatures(data)
    assert caught.value.check == "engine.signatures"


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(InputError, match="too large"):
        parse_signatures(b" " * (1024 * 1024 + 1))


def test_inputs_that_fit_are_accepted(two: Signature) -> None:
    two.check_inputs({"a": np.zeros((3, 2), np.float32), "b": np.zeros((1, 2, 3), np.int64)})


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["a"],
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {b}.",
        ),
        (
            ["a", "b", "c"],
            "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b}). Sent extra: {c}. "
            "Missing but required: {}.",
        ),
        (
            ["a", "c"],
            "Signature input alias: b(feed name: b:0) not found in request and no default value provided. Inputs "
            "expected to be in the request {a,c}, or default input alias set: ",
        ),
    ],
)
def test_other_names_are_refused_in_the_originals_words(two: Signature, names: list[str], text: str) -> None:
    with pytest.raises(RequestError) as caught:
        two.check_names(names)
    assert caught.value.problem == text
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ((3, 2), np.float64, "Expects arg[0] to be float but double is provided"),
        ((3, 3), np.float32, "Expects arg[0] (a) to have shape [-1,2] but had shape [3,3]"),
        ((2,), np.float32, "Expects arg[0] (a) to have shape [-1,2] but had shape [2]"),
    ],
)
def test_other_types_and_shapes_are_refused(two: Signature, shape: tuple[int, ...], dtype: type, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        two.check_inputs({"a": np.zeros(shape, dtype), "b": np.zeros(1, np.int64)})
    assert caught.value.problem == text


def test_inputs_with_a_default_may_be_left_out(two: Signature) -> None:
    b = np.ones(1, np.int64)
    signature = dataclasses.replace(two, defaults={"b": b})
    a = np.zeros((3, 2), np.float32)
    signature.check_names(["a"])
    signature.check_names(["b", "a"])
    assert signature.complete({"a": a}) == {"a": a, "b": b}
    assert two.complete(inputs := {"a": a, "b": b}) is inputs
    for names, text in (
        (["b"], "Inputs expected to be in the request {b}, or default input alias set: b"),
        ([], "Inputs expected to be in the request {}, or default input alias set: b"),
        (["a", "b", "c"], "input size does not match signature: 3!=2"),
    ):
        with pytest.raises(RequestError) as caught:
            signature.check_names(names)
        assert text in caught.value.problem


def test_shapes_may_be_left_to_the_engine(two: Signature) -> None:
    inputs = {"a": np.zeros((3,), np.float32), "b": np.zeros(1, np.int64)}
    two.check_inputs(inputs, shapes=False)
    with pytest.raises(RequestError, match=r"to have shape \[-1,2\]"):
        two.check_inputs(inputs)
    with pytest.raises(RequestError, match="at most 4096"):
        two.check_inputs({**inputs, "a": np.zeros(MAX_AXIS + 1, np.float32)}, shapes=False)


def test_what_a_graph_computes(two: Signature) -> None:
    examples = {"f": {"tensor": "f:0", "dtype": "DT_INT64", "shape": [2], "default": [1, 2]}}
    entry = {
        "method_name": "tensorflow/serving/classify",
        "inputs": {"inputs": {"tensor": "e", "dtype": "DT_STRING", "shape": None}},
        "outputs": {
            "classes": {"tensor": "c", "dtype": "DT_STRING", "shape": [-1, 1], "labels": ["é"]},
            "row": {"tensor": "r", "dtype": "DT_STRING", "shape": [-1, 2], "constant": ["a", "b"]},
        },
        "graph": "model-2",
        "examples": {"features": examples},
    }
    data = json.dumps({"signatures": {"s": entry}, "precision": "bf16"}).encode()
    [(name, binding)] = parse_bindings(data).items()
    assert name == binding.signature.name == "s"
    assert (binding.graph, binding.precision) == ("model-2", "bf16")
    assert binding.features == {"f": FeatureSpec("f:0", dtype_named("DT_INT64"), (2,), (1, 2))}
    assert (binding.labels, binding.constants) == ({"classes": ("é".encode(),)}, {"row": (b"a", b"b")})
    assert parse_signatures(data) == {"s": binding.signature}


def test_output_filter(two: Signature) -> None:
    assert two.choose_outputs([]) == ("x", "y")
    assert two.choose_outputs(["y"]) == ("y",)
    with pytest.raises(RequestError, match="duplicate output tensor alias: y"):
        two.choose_outputs(["y", "y"])
    with pytest.raises(RequestError) as caught:
        two.choose_outputs(["z"])
    assert caught.value.problem == (
        "output tensor alias not found in signature: z Outputs expected to be in the set {x,y}."
    )


def test_find_signature_defaults_and_refuses(two: Signature) -> None:
    assert find_signature({"serving_default": two}, "") is two
    with pytest.raises(RequestError) as caught:
        find_signature({"serving_default": two}, "other")
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.problem == 'Serving signature key "other" not found.'


def test_as_a_message(two: Signature) -> None:
    proto = two.to_proto()
    assert proto.method_name == "tensorflow/serving/predict"
    assert [dim.size for dim in proto.inputs["a"].tensor_shape.dim] == [-1, 2]
    assert proto.inputs["b"].tensor_shape.unknown_rank
    assert (proto.inputs["b"].name, proto.inputs["b"].dtype) == ("b:0", 9)


def test_an_open_axis_has_an_end() -> None:
    spec = TensorSpec("a", dtype_named("DT_FLOAT"), (-1, 2))
    fixed = TensorSpec("b", dtype_named("DT_FLOAT"), (MAX_AXIS + 1,))
    signature = Signature("s", PREDICT_METHOD, {"a": spec, "b": fixed}, {})
    model_own = np.zeros(MAX_AXIS + 1, np.float32)
    signature.check_inputs({"a": np.zeros((MAX_AXIS, 2), np.float32), "b": model_own})
    with pytest.raises(RequestError, match="at most 4096 are computed at once"):
        signature.check_inputs({"a": np.zeros((MAX_AXIS + 1, 2), np.float32), "b": model_own})
