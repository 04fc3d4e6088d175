"""Versions of several graphs, of labels, and of examples."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.tfserving.messages import Example
from ensconce.tfserving.refusal import Code, RequestError

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from ensconce.serving.engines.openvino import OpenVinoServable


def linear_model(folder: Path, name: str, factor: float, dtype: str = "f32") -> None:
    """``NAME.xml``: y = x * factor and i = the integers below y, for x [-1, 2]."""
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter(ov.PartialShape([-1, 2]), getattr(ov.Type, dtype))
    x.output(0).get_tensor().set_names({"x"})
    y = ops.multiply(x, ops.constant(np.array(factor, np.float32)))
    y.output(0).get_tensor().set_names({"y"})
    i = ops.convert(y, "i64")
    i.output(0).get_tensor().set_names({"i"})
    ov.save_model(ov.Model([ops.result(y), ops.result(i)], [x]), folder / f"{name}.xml", compress_to_fp16=False)


X = {"tensor": "x", "dtype": "DT_FLOAT", "shape": [-1, 2]}
Y = {"tensor": "y", "dtype": "DT_FLOAT", "shape": [-1, 2]}


def several(folder: Path, **signatures: dict[str, Any]) -> dict[str, bytes]:
    document = {
        name: {"method_name": "tensorflow/serving/predict", "inputs": {"x": X}, "outputs": {"y": Y}, **entry}
        for name, entry in signatures.items()
    }
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "signatures.json": json.dumps({"signatures": document}).encode()}


def test_several_graphs(tmp_path: Path) -> None:
    linear_model(tmp_path, "model", 2)
    linear_model(tmp_path, "other.1", 3)
    files = several(tmp_path, serving_default={}, again={}, other={"graph": "other.1"})
    servable = OpenVinoServable(files)
    x = np.array([[1, 2]], np.float32)
    got = [servable.predict(name, {"x": x})["y"].tolist() for name in ("", "again", "other")]
    assert got == [[[2, 4]], [[2, 4]], [[3, 6]]]
    assert servable._plans["again"].graph is servable._plans["serving_default"].graph
    with pytest.raises(RequestError, match=r"the set \{y\}"):
        servable.predict("other", {"x": x}, ["z"])
    with pytest.raises(RequestError) as caught:
        servable.predict("nobody", {"x": x})
    assert caught.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(InputError, match=r"the model has no other\.1\.bin"):
        OpenVinoServable({name: data for name, data in files.items() if name != "other.1.bin"})


def test_integers_become_labels_and_rows_constants(tmp_path: Path) -> None:
    linear_model(tmp_path, "model", 1)
    words = {"tensor": "i", "dtype": "DT_STRING", "shape": [-1, 2], "labels": ["no", "yés"]}
    classes = {"tensor": "anything", "dtype": "DT_STRING", "shape": [-1, 3], "constant": ["a", "b", "c"]}
    files = several(tmp_path, serving_default={"outputs": {"words": words, "classes": classes, "y": Y}})
    got = OpenVinoServable(files).predict("", {"x": np.array([[0, 1], [2, -1]], np.float32)})
    assert got["words"].tolist() == [[b"no", "yés".encode()], [b"UNK", b"UNK"]]
    assert got["classes"].tolist() == [[b"a", b"b", b"c"]] * 2
    assert {array.dtype for name, array in got.items() if name != "y"} == {np.dtype(object)}


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({**Y, "dtype": "DT_STRING", "labels": ["a"]}, "output y has labels, the model's tensor is f32"),
        ({**Y, "labels": ["a"]}, "only an output of DT_STRING"),
        ({**Y, "dtype": "DT_STRING", "labels": ["a"], "constant": ["a"]}, "labels or is constant, not both"),
        ({**Y, "dtype": "DT_STRING", "tensor": "i", "shape": [3], "labels": ["a"]}, "the shape of output y is not"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, output: dict[str, Any], text: str) -> None:
    linear_model(tmp_path, "model", 1)
    with pytest.raises(InputError, match=text):
        OpenVinoServable(several(tmp_path, serving_default={"outputs": {"y": output}}))


@pytest.mark.parametrize("graph", ["../model", "", "a/b", ".hidden"])
def test_a_graph_is_a_file_of_the_version(tmp_path: Path, graph: str) -> None:
    linear_model(tmp_path, "model", 1)
    with pytest.raises(InputError, match=r"serving_default\.graph"):
        OpenVinoServable(several(tmp_path, serving_default={"graph": graph}))


def test_inputs_of_any_layout_are_taken(tmp_path: Path) -> None:
    linear_model(tmp_path, "model", 1)
    servable = OpenVinoServable(several(tmp_path, serving_default={}))
    numbers = np.arange(8, dtype=np.float32).reshape(4, 2)
    read_only = np.frombuffer(numbers.tobytes(), np.float32).reshape(4, 2)
    for array in (numbers, read_only, np.asfortranarray(numbers), numbers[::2], numbers[:1]):
        np.testing.assert_array_equal(servable.predict("", {"x": array})["y"], array)


def of_examples(folder: Path, **feature: Any) -> dict[str, bytes]:
    linear_model(folder, "model", 2)
    return several(
        folder,
        serving_default={
            "method_name": "tensorflow/serving/regress",
            "inputs": {"inputs": {"tensor": "input_examples", "dtype": "DT_STRING", "shape": None}},
            "examples": {"features": {"pair": {"tensor": "x", "dtype": "DT_FLOAT", "shape": [2], **feature}}},
        },
    )


def example(**features: list[float]) -> bytes:
    message = Example()
    for name, values in features.items():
        message.features.feature[name].float_list.value.extend(values)
    serialized: bytes = message.SerializeToString()
    return serialized


def test_examples_are_parsed_before_the_graph(tmp_path: Path) -> None:
    servable = OpenVinoServable(of_examples(tmp_path, default=[7, 8.5]))
    sent = np.array([example(pair=[1, 2]), example(other=[0])], object)
    assert servable.predict("", {"inputs": sent})["y"].tolist() == [[2, 4], [14, 17]]
    for array, text in (
        (np.array(b"", object), r"Expected serialized to be a vector, got shape: \[\]"),
        (np.array([example(pair=[1])], object), "Number of float values != expected"),
        (np.array([b"\xff"], object), "Could not parse example input"),
        (np.zeros(1, np.float32), "Expects arg.0. to be string but float"),
    ):
        with pytest.raises(RequestError, match=text):
            servable.predict("", {"inputs": array})
    assert servable.predict("", {"inputs": np.array([], object)})["y"].shape == (0, 2)


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ({"dtype": "DT_INT64"}, "input pair is DT_INT64, the model's tensor is f32"),
        ({"dtype": "DT_DOUBLE"}, "a feature is DT_FLOAT"),
        ({"default": [1.0]}, "default has 1 values, 2 are needed"),
        ({"default": ["a", "b"]}, "default has values that are no float"),
        ({"shape": [3]}, "the shape of input pair is not the model's"),
        ({"tensor": "z"}, "input pair is tensor z, which the model does not have"),
        ({"more": 1}, "features.pair.more"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path: Path, feature: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        OpenVinoServable(of_examples(tmp_path, **feature))
    assert caught.value.check == "engine.signatures"
    assert text in str(caught.value)


def test_examples_come_in_the_only_input(tmp_path: Path) -> None:
    files = of_examples(tmp_path)
    with pytest.raises(InputError, match="has one input, of DT_STRING"):
        OpenVinoServable({**files, "signatures.json": files["signatures.json"].replace(b"DT_STRING", b"DT_INT64")})
