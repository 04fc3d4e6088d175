"""TensorFlow Serving's APIs, which OpenVINO Model Server has as well.

gRPC: ``tensorflow_serving/apis/prediction_service.proto``. REST: tensorflow.org/tfx/serving/api_rest, the column format
of ``:predict`` and the metadata of a model, which is ``GetModelMetadataResponse`` in protobuf's JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ensconce.bench.targets.dialect import Answer, Ask, ModelName, bad_answer, json_numbers, json_object, url_of
from ensconce.client.codec import (
    METADATA,
    PREDICT,
    Array,
    decode_response,
    encode_metadata_request,
    encode_request,
)
from ensconce.client.signatures import DEFAULT, InputSpec, Signature, decode_signatures, signature_named
from ensconce.tfserving.dtypes import dtype_named

__all__ = ["TensorFlowGrpc", "TensorFlowRest"]


class TensorFlowGrpc:
    """See :class:`ensconce.bench.targets.dialect.Dialect`."""

    def __init__(self, model: ModelName) -> None:
        self._model = model

    def metadata(self) -> Ask:
        """``GetModelMetadata``."""
        return Ask(METADATA, encode_metadata_request(self._model.name, self._model.version))

    def inputs(self, answer: bytes) -> dict[str, InputSpec]:
        """Of the signature."""
        signatures, _ = decode_signatures(answer)
        return dict(signature_named(self._model.signature, signatures).inputs)

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """``Predict``."""
        model = self._model
        return Ask(PREDICT, encode_request(model.name, arrays, version=model.version, signature=model.signature))

    def check(self, answer: Answer) -> None:
        """A ``PredictResponse`` with outputs."""
        if not decode_response(answer.body):
            raise bad_answer("PredictResponse", "no outputs")


class TensorFlowRest:
    """See :class:`ensconce.bench.targets.dialect.Dialect`."""

    def __init__(self, model: ModelName) -> None:
        self._model = model
        self._path = url_of("v1", model)

    def metadata(self) -> Ask:
        """``GET .../metadata``."""
        return Ask(f"{self._path}/metadata", None)

    def inputs(self, answer: bytes) -> dict[str, InputSpec]:
        """Of the signature."""
        what = "metadata of a model"
        found = json_object(answer, what)
        try:
            signatures = found["metadata"]["signature_def"]["signature_def"]
            named = {
                str(name): Signature("", {key: _spec(each) for key, each in signature.get("inputs", {}).items()}, {})
                for name, signature in signatures.items()
                # Others may hold types that have no array; they are not asked.
                if name == (self._model.signature or DEFAULT)
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise bad_answer(what, f"{type(error).__name__}: {error}") from error
        return dict(signature_named(self._model.signature, named).inputs)

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """``POST ...:predict``, in columns."""
        body: dict[str, Any] = {"inputs": {name: _values(name, array) for name, array in arrays.items()}}
        if self._model.signature:
            body["signature_name"] = self._model.signature
        return Ask(f"{self._path}:predict", json.dumps(body, separators=(",", ":")).encode())

    def check(self, answer: Answer) -> None:
        """It has ``outputs``."""
        if "outputs" not in json_object(answer.body, "prediction in columns"):
            raise bad_answer("prediction in columns", "no outputs")


def _spec(tensor: Mapping[str, Any]) -> InputSpec:
    # Numbers of 64 bits are text in protobuf's JSON.
    sizes = (int(axis["size"]) for axis in tensor.get("tensor_shape", {}).get("dim", []))
    return InputSpec(dtype_named(tensor["dtype"]).numpy, tuple(sizes))


def _values(name: str, array: Array) -> Any:
    if array.dtype.kind in "OSU":
        return _base64(array.tolist())
    return json_numbers(name, array, "TensorFlow Serving's REST API")


def _base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_base64(each) for each in value]
    return {"b64": base64.b64encode(value if isinstance(value, bytes) else str(value).encode()).decode()}
