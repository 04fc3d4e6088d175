"""The Open Inference Protocol, version 2 (KServe, Triton, MLServer, OpenVINO Model Server): gRPC and REST.

github.com/kserve/open-inference-protocol, specification/protocol: open_inference_grpc.proto, inference_rest.md; and its
binary tensor data extension, github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md. Over
gRPC and with the extension tensors go as raw bytes; strings in them each after their length, 4 bytes little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.bench.targets.dialect import (
    Answer,
    Ask,
    ModelName,
    bad_answer,
    json_numbers,
    json_object,
    unsayable,
    url_of,
)
from ensconce.client.codec import Array
from ensconce.client.signatures import InputSpec
from ensconce.tfserving.dtypes import BFLOAT16, STRING
from ensconce.tfserving.messages import InferMetadataRequest, InferMetadataResponse, InferRequest, InferResponse

__all__ = ["InferenceBinary", "InferenceGrpc", "InferenceRest"]

_SERVICE: Final = "/inference.GRPCInferenceService"

_DTYPES: Final = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": BFLOAT16,
    "BYTES": STRING,
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


class InferenceGrpc:
    """See :class:`ensconce.bench.targets.dialect.Dialect`."""

    def __init__(self, model: ModelName) -> None:
        self._name = model.name
        self._version = "" if model.version is None else str(model.version)

    def metadata(self) -> Ask:
        """``ModelMetadata``."""
        request = InferMetadataRequest(name=self._name, version=self._version)
        return Ask(f"{_SERVICE}/ModelMetadata", request.SerializeToString())

    def inputs(self, answer: bytes) -> dict[str, InputSpec]:
        """Of the model."""
        what = "ModelMetadataResponse"
        try:
            found = InferMetadataResponse.FromString(answer)
        except DecodeError as error:
            raise bad_answer(what, str(error)) from error
        return _specs(((each.name, each.datatype, each.shape) for each in found.inputs), what)

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """``ModelInfer``."""
        request = InferRequest(model_name=self._name, model_version=self._version)
        for name, array in arrays.items():
            request.inputs.add(name=name, datatype=_datatype(name, array), shape=array.shape)
            request.raw_input_contents.append(_raw(array))
        return Ask(f"{_SERVICE}/ModelInfer", request.SerializeToString())

    def check(self, answer: Answer) -> None:
        """A ``ModelInferResponse`` with outputs."""
        try:
            outputs = InferResponse.FromString(answer.body).outputs
        except DecodeError as error:
            raise bad_answer("ModelInferResponse", str(error)) from error
        if not outputs:
            raise bad_answer("ModelInferResponse", "no outputs")


class InferenceRest:
    """See :class:`ensconce.bench.targets.dialect.Dialect`."""

    def __init__(self, model: ModelName) -> None:
        self._path = url_of("v2", model)

    def metadata(self) -> Ask:
        """``GET`` of the model."""
        return Ask(self._path, None)

    def inputs(self, answer: bytes) -> dict[str, InputSpec]:
        """Of the model."""
        what = "metadata of a model"
        found = json_object(answer, what)
        if "name" not in found:
            raise bad_answer(what, "no name")
        try:
            told = [(each["name"], each["datatype"], each["shape"]) for each in found.get("inputs") or ()]
        except (KeyError, TypeError) as error:
            raise bad_answer(what, f"{type(error).__name__}: {error}") from error
        return _specs(told, what)

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """``POST .../infer``."""
        inputs = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _datatype(name, array),
                "data": _flat(name, array),
            }
            for name, array in arrays.items()
        ]
        return Ask(f"{self._path}/infer", json.dumps({"inputs": inputs}, separators=(",", ":")).encode())

    def check(self, answer: Answer) -> None:
        """It has ``outputs``."""
        if not json_object(answer.body[: answer.json_size], "inference response").get("outputs"):
            raise bad_answer("inference response", "no outputs")


class InferenceBinary(InferenceRest):
    """The same with tensors as bytes after the JSON, in requests and answers."""

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """``POST .../infer``."""
        raw = [_raw(array) for array in arrays.values()]
        inputs = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _datatype(name, array),
                "parameters": {"binary_data_size": len(each)},
            }
            for (name, array), each in zip(arrays.items(), raw, strict=True)
        ]
        told = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}, separators=(",", ":"))
        return Ask(f"{self._path}/infer", b"".join([told.encode(), *raw]), len(told))


def _specs(told: Iterable[tuple[Any, Any, Any]], what: str) -> dict[str, InputSpec]:
    try:
        return {str(name): InputSpec(_DTYPES[datatype], tuple(map(int, shape))) for name, datatype, shape in told}
    except (KeyError, TypeError, ValueError) as error:
        raise bad_answer(what, f"{type(error).__name__}: {error}") from error


def _datatype(name: str, array: Array) -> str:
    found = "BYTES" if array.dtype.kind in "OSU" else _NAMES.get(array.dtype)
    if found is None:
        raise unsayable(name, array, "the Open Inference Protocol")
    return found


def _strings(array: Array) -> list[bytes]:
    return [each if isinstance(each, bytes) else str(each).encode() for each in array.ravel().tolist()]


def _raw(array: Array) -> bytes:
    if array.dtype.kind in "OSU":
        return b"".join(struct.pack("<I", len(each)) + each for each in _strings(array))
    return array.tobytes()


def _flat(name: str, array: Array) -> Any:
    protocol = "the Open Inference Protocol in JSON"
    if array.dtype.kind not in "OSU":
        return json_numbers(name, array.ravel(), protocol)
    try:
        return [each.decode() for each in _strings(array)]
    except UnicodeDecodeError as error:
        raise unsayable(name, array, protocol) from error
