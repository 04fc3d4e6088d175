"""Requests and answers of each protocol, against recorded ones and against what our server reads."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest

from ensconce.bench.targets.dialect import Answer, ModelName
from ensconce.bench.targets.inference import InferenceBinary, InferenceGrpc, InferenceRest
from ensconce.bench.targets.opening import Protocol, dialect_of
from ensconce.bench.targets.tensorflow import TensorFlowGrpc, TensorFlowRest
from ensconce.client.signatures import InputSpec
from ensconce.errors import EnsconceError, InputError, UnreachableError
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import from_proto, to_proto

ROWS = np.arange(6, dtype="<f4").reshape(2, 3)
JPEG = b"\xff\xd8\xff"
STRINGS = np.array([JPEG, "text"], dtype=object)


def test_tensorflow_grpc() -> None:
    dialect = TensorFlowGrpc(ModelName("resnet", 3, "raw"))
    ask = dialect.request({"images": ROWS})
    assert ask.path == "/tensorflow.serving.PredictionService/Predict"
    request = PredictRequest.FromString(ask.body)
    assert (request.model_spec.name, request.model_spec.version.value) == ("resnet", 3)
    assert request.model_spec.signature_name == "raw"
    np.testing.assert_array_equal(from_proto(request.inputs["images"]), ROWS)
    answer = PredictResponse()
    answer.outputs["y"].CopyFrom(to_proto(ROWS))
    dialect.check(Answer(answer.SerializeToString(), None))


# As tensorflow_model_server 2.x answers GET /v1/models/NAME/metadata.
TF_METADATA = b"""{
"model_spec":{"name": "half", "signature_name": "", "version": "123"},
"metadata": {"signature_def": {"signature_def": {
  "serving_default": {
    "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""},
      {"size": "3", "name": ""}],
      "unknown_rank": false}, "name": "x:0"}},
    "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": false}, "name": "y:0"}},
    "method_name": "tensorflow/serving/predict"},
  "__saved_model_init_op": {"inputs": {}, "outputs": {"i": {"dtype": "DT_INVALID",
    "tensor_shape": {"dim": [], "unknown_rank": true}, "name": "NoOp"}}, "method_name": ""}}}}}"""


def test_tensorflow_rest() -> None:
    dialect = TensorFlowRest(ModelName("half plus/two", 3, "raw"))
    assert dialect.metadata().path == "/v1/models/half%20plus%2Ftwo/versions/3/metadata"
    ask = dialect.request({"images": ROWS, "jpeg": STRINGS})
    assert ask.path == "/v1/models/half%20plus%2Ftwo/versions/3:predict"
    assert json.loads(ask.body or b"") == {
        "signature_name": "raw",
        "inputs": {
            "images": ROWS.tolist(),
            "jpeg": [{"b64": base64.b64encode(each).decode()} for each in (JPEG, b"text")],
        },
    }
    newest = TensorFlowRest(ModelName("half"))
    assert newest.inputs(TF_METADATA) == {"x": InputSpec(np.dtype("<f4"), (-1, 3))}
    newest.check(Answer(b'{"outputs": [[2.5]]}', None))


def test_inference_grpc_as_bytes() -> None:
    # By hand from open_inference_grpc.proto: 1 model_name, 2 model_version, 5 inputs (1 name, 2 datatype, 3 packed
    # shape), 7 raw contents.
    ask = InferenceGrpc(ModelName("m", 2)).request({"x": ROWS})
    assert ask.path == "/inference.GRPCInferenceService/ModelInfer"
    tensor = b"\x0a\x01x" + b"\x12\x04FP32" + b"\x1a\x02\x02\x03"
    expected = b"\x0a\x01m" + b"\x12\x012" + b"\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\x18" + ROWS.tobytes()
    assert ask.body == expected


def test_inference_grpc_strings_and_metadata() -> None:
    dialect = InferenceGrpc(ModelName("m"))
    body = dialect.request({"x": STRINGS}).body or b""
    assert body.endswith(b"\x03\x00\x00\x00" + JPEG + b"\x04\x00\x00\x00text")
    assert b"BYTES" in body
    # 4 inputs: 1 name, 2 datatype, 3 shape [-1, 3].
    shape = b"\x1a\x0b" + b"\xff" * 9 + b"\x01" + b"\x03"
    tensor = b"\x0a\x01x" + b"\x12\x05INT64" + shape
    told = b"\x0a\x01m" + b"\x22" + bytes([len(tensor)]) + tensor
    assert dialect.inputs(told) == {"x": InputSpec(np.dtype("<i8"), (-1, 3))}
    dialect.check(Answer(b"\x0a\x01m" + b"\x2a\x03\x0a\x01y", None))


def test_inference_rest() -> None:
    dialect = InferenceRest(ModelName("m", 2))
    assert dialect.metadata().path == "/v2/models/m/versions/2"
    # The example of inference_rest.md, as Triton answers it.
    told = b"""{"name": "m", "versions": ["2"], "platform": "tensorrt_plan",
      "inputs": [{"name": "input0", "datatype": "UINT32", "shape": [2, 2]}, {"name": "t", "datatype": "BYTES",
      "shape": [-1]}], "outputs": [{"name": "output0", "datatype": "FP32", "shape": [3, 2]}]}"""
    specs = {"input0": InputSpec(np.dtype("<u4"), (2, 2)), "t": InputSpec(np.dtype(object), (-1,))}
    assert dialect.inputs(told) == specs
    ask = dialect.request({"input0": np.array([[1, 2], [3, 4]], "<u4"), "t": np.array([b"a", b"b"], object)})
    assert ask.path == "/v2/models/m/versions/2/infer"
    assert json.loads(ask.body or b"") == {
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
            {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        ]
    }
    dialect.check(
        Answer(
            b'{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}]}', None
        )
    )
    assert dialect.inputs(b'{"name": "m"}') == {}


def test_inference_binary() -> None:
    # The example of extension_binary_data.md: 16 bytes of input0 and 3 of input1 after the JSON.
    dialect = InferenceBinary(ModelName("mymodel"))
    ask = dialect.request({"input0": np.array([[1, 2], [3, 4]], "<u4"), "input1": np.array([True, False, True])})
    assert ask.path == "/v2/models/mymodel/infer"
    assert ask.body is not None
    assert json.loads(ask.body[: ask.json_size]) == {
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
            {"name": "input1", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
        ],
        "parameters": {"binary_data_output": True},
    }
    assert ask.body[ask.json_size :] == struct.pack("<4I", 1, 2, 3, 4) + b"\1\0\1"
    strings = dialect.request({"x": STRINGS})
    assert (strings.body or b"").endswith(b"}\x03\x00\x00\x00" + JPEG + b"\x04\x00\x00\x00text")
    told = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'
    dialect.check(Answer(told + b"\xff" * 4, None, len(told)))
    # A server without the extension's outputs answers in JSON.
    dialect.check(Answer(told, None))


@pytest.mark.parametrize("protocol", ["grpc", "rest", "v2-grpc", "v2-rest", "v2-rest-binary"])
@pytest.mark.parametrize(
    "answer", [b"<html>", b"\xff" * 8, b"[]", b'{"inputs": 1}', b'{"inputs": [{"name": "x"}]}', b'{"metadata": []}']
)
def test_what_is_no_answer_is_refused(protocol: Protocol, answer: bytes) -> None:
    dialect = dialect_of(protocol, ModelName("m"))
    with pytest.raises(EnsconceError) as caught:
        dialect.inputs(answer)
    assert caught.value.check in ("bench.answer", "predict.metadata", "predict.signature")
    with pytest.raises(UnreachableError):
        dialect.check(Answer(answer, None))


def test_unknown_types_of_a_v2_server_are_refused() -> None:
    with pytest.raises(UnreachableError, match="FP8"):
        InferenceRest(ModelName("m")).inputs(
            b'{"name": "m", "inputs": [{"name": "x", "datatype": "FP8", "shape": [1]}]}'
        )


@pytest.mark.parametrize(
    ("protocol", "array"),
    [
        ("grpc", np.zeros(2, "datetime64[s]")),
        ("rest", np.zeros(2, "<c8")),
        ("v2-grpc", np.zeros(2, "<c8")),
        ("v2-rest", np.zeros(2, "<c8")),
        ("v2-rest", np.zeros(2, [("bfloat16", "<u2")])),
        ("v2-rest", STRINGS),
        ("rest", np.array([1, np.nan])),
        ("v2-rest", np.array([1, np.inf])),
    ],
)
def test_what_a_protocol_cannot_say(protocol: Protocol, array: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        dialect_of(protocol, ModelName("m")).request({"x": array})
    assert caught.value.check == "predict.inputs"


def test_the_open_inference_protocol_has_no_signatures() -> None:
    with pytest.raises(InputError, match="signatures"):
        dialect_of("v2-grpc", ModelName("m", None, "raw"))
