"""Bodies as the protocols have them, written by hand and read by hand."""

from __future__ import annotations

import base64
import json

import numpy as np
from benchmarks.serving.protocols import (
    base64_body,
    base64_classes,
    field,
    framed,
    rest_body,
    rest_classes,
    tfs_body,
    v2_body,
    v2_classes,
)

from ensconce.tfserving.messages import PredictRequest

IMAGES = np.arange(300, dtype=np.float32).reshape(1, 300)


def test_a_framed_message_says_its_length() -> None:
    assert framed(b"abc") == b"\x00\x00\x00\x00\x03abc"


def test_model_infer_request() -> None:
    tensor = b"\x0a\x06images\x12\x04FP32\x1a\x03\x01\xac\x02"
    expected = b"\x0a\x01m\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\xb0\x09" + IMAGES.tobytes()
    assert v2_body("m", IMAGES) == expected


def test_model_infer_response_names_its_tensors_in_any_order() -> None:
    def output(name: bytes) -> bytes:
        return field(5, field(1, name) + field(2, b"INT64"))

    raw = field(6, b"\0" * 40) + field(6, np.array([7, 3], "<i8").tobytes())
    assert v2_classes(field(1, b"m") + output(b"probabilities") + output(b"classes") + raw) == [7, 3]


def test_predict_request() -> None:
    request = PredictRequest.FromString(tfs_body("m", "x", IMAGES))
    assert request.model_spec.name == "m"
    assert request.inputs["x"].tensor_content == IMAGES.tobytes()


def test_json() -> None:
    assert json.loads(rest_body(IMAGES))["instances"] == IMAGES.tolist()
    assert rest_classes(b'{"predictions": [{"classes": 4, "probabilities": []}]}') == [4]
    assert base64.b64decode(json.loads(base64_body(IMAGES, listed=False))["images"]) == IMAGES.tobytes()
    assert isinstance(json.loads(base64_body(IMAGES, listed=True))["images"], list)
    assert base64_classes(b'{"classes": [1]}') == base64_classes(b'[{"classes": [1]}]') == [1]
