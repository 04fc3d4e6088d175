"""Models that TensorFlow Serving is tested with, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from ensconce.serving.engines import LoadError, Servable
from ensconce.serving.engines.folder import FolderOptions, load_folder
from ensconce.tfserving.messages import Example, GetModelMetadataResponse, SignatureDefMap
from ensconce.tfserving.refusal import Code

HALF_PLUS_TWO = ("saved_model_half_plus_two_cpu", "saved_model_half_plus_two_tf2_cpu")


def load(testdata: Path, name: str, version: str = "00000123", **options: Any) -> Servable:
    return load_folder(testdata / name / version, FolderOptions(**options))


def floats(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def example(**features: float) -> bytes:
    message = Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    serialized: bytes = message.SerializeToString()
    return serialized


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("saved_model_half_plus_two_cpu", "half_plus_two_model_metadata.json"),
        ("saved_model_half_plus_two_2_versions", "saved_model_half_plus_two_2_versions_metadata.json"),
        ("saved_model_half_plus_two_tf2_cpu", "saved_model_half_plus_two_tf2_2_versions_metadata.json"),
    ],
)
def test_metadata_is_the_originals(testdata: Path, name: str, metadata: str) -> None:
    wanted = SignatureDefMap()
    document = json.loads((testdata / metadata).read_text())
    json_format.ParseDict(document["metadata"]["signature_def"], wanted)
    made = SignatureDefMap()
    for key, signature in load(testdata, name).signatures.items():
        made.signature_def[key].CopyFrom(signature.to_proto())
    if "tf2" in name:
        # The model was exported again, with a default, after its metadata was written down.
        made.signature_def["serving_default"].ClearField("defaults")
    assert made == wanted
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(made)
    assert response.ByteSize() > 0


@pytest.mark.parametrize("name", HALF_PLUS_TWO)
def test_predictions(testdata: Path, name: str) -> None:
    servable = load(testdata, name)
    assert servable.predict("", {"x": floats([2], [3], [4])})["y"].tolist() == [[3], [3.5], [4]]
    of_examples = {"inputs": np.array([example(x=80), example(x=90)], object)}
    for signature, output in (("regress_x_to_y", "outputs"), ("classify_x_to_y", "scores")):
        assert servable.predict(signature, of_examples)[output].tolist() == [[42], [47]]


def test_a_list_where_the_signature_has_a_column(testdata: Path) -> None:
    assert load(testdata, HALF_PLUS_TWO[0]).predict("", {"x": floats(2, 3, 4)})["y"].tolist() == [3, 3.5, 4]


def test_a_default_stands_for_what_is_left_out(testdata: Path) -> None:
    assert load(testdata, "saved_model_half_plus_two_tf2_cpu").predict("", {})["y"].tolist() == [2]


def test_state_is_kept_between_requests(testdata: Path) -> None:
    servable = load(testdata, "saved_model_counter")
    counts = [
        float(servable.predict(name, {})["output"])
        for name in ("get_counter", "incr_counter", "get_counter", "incr_counter", "get_counter")
    ]
    assert counts == [0, 1, 1, 2, 2]
    assert float(servable.predict("incr_counter_by", {"delta": np.array(3, np.float32)})["output"]) == 5


@pytest.mark.parametrize("name", ["saved_model_half_plus_two_tflite", "saved_model_half_plus_two_tflite_with_sigdef"])
def test_tflite(testdata: Path, name: str) -> None:
    servable = load(testdata, name, prefer_tflite_model=True)
    assert servable.predict("", {"x": floats(2, 3, 4)})["y"].tolist() == [3, 3.5, 4]
    assert list(servable.signatures) == ["serving_default"]


def test_a_tflite_model_of_operations_that_python_lacks(testdata: Path) -> None:
    with pytest.raises(LoadError, match="ParseExampleV2") as caught:
        load(testdata, "parse_example_tflite", prefer_tflite_model=True)
    assert caught.value.code is Code.INTERNAL


def test_a_bad_model(testdata: Path) -> None:
    with pytest.raises(LoadError, match="Could not find SavedModel") as caught:
        load(testdata, "bad_half_plus_two")
    assert caught.value.code is Code.NOT_FOUND
