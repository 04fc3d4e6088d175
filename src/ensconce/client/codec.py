"""Predictions as TensorFlow Serving's messages: arrays in a request, arrays out of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.dtypes import dtype_numbered
from ensconce.tfserving.messages import (
    PREDICTION_SERVICE,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import from_proto, to_proto

__all__ = [
    "METADATA",
    "PREDICT",
    "Array",
    "InputSpec",
    "decode_inputs",
    "decode_response",
    "encode_metadata_request",
    "encode_request",
]

Array = np.ndarray[Any, Any]

# A few bytes can stand for a large tensor, all of one value.
_MAX_TENSOR = 256 * 1024 * 1024

PREDICT = f"/{PREDICTION_SERVICE}/Predict"
METADATA = f"/{PREDICTION_SERVICE}/GetModelMetadata"

_SIGNATURES = "signature_def"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a signature takes under one name: element type, and shape with -1 for dimensions of any size."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def encode_request(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: int | None = None,
    signature: str = "",
    outputs: Sequence[str] = (),
) -> bytes:
    """A ``PredictRequest``.

    Args:
        model: the model's name.
        inputs: one array for each input of the signature.
        version: ``None`` for the newest.
        signature: empty for ``serving_default``.
        outputs: which outputs to send back; empty for all.

    Raises:
        InputError: check ``predict.inputs``; an array has no tensor type.
    """
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        try:
            request.inputs[name].CopyFrom(to_proto(array))
        except RequestError as error:
            raise InputError(
                "predict.inputs", f"input {name} cannot be sent: {error.problem}", found=str(array.dtype)
            ) from error
    request.output_filter.extend(outputs)
    encoded: bytes = request.SerializeToString()
    return encoded


def decode_response(data: bytes) -> dict[str, Array]:
    """The outputs in a ``PredictResponse``; some arrays are read-only.

    Raises:
        UnreachableError: check ``predict.response``; this is no such message.
    """
    try:
        response = PredictResponse.FromString(data)
        return {name: from_proto(tensor, limit=_MAX_TENSOR) for name, tensor in response.outputs.items()}
    except (DecodeError, RequestError) as error:
        raise UnreachableError(
            "predict.response", "the server's answer is no PredictResponse", found=str(error)[:200]
        ) from error


def encode_metadata_request(model: str, version: int | None) -> bytes:
    """A ``GetModelMetadataRequest`` for the signatures of a model; ``None`` for the newest version."""
    request = GetModelMetadataRequest(metadata_field=[_SIGNATURES])
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    encoded: bytes = request.SerializeToString()
    return encoded


def decode_inputs(data: bytes, signature: str) -> dict[str, InputSpec]:
    """The inputs of one signature in a ``GetModelMetadataResponse``.

    Raises:
        UnreachableError: check ``predict.metadata``; this is no such message.
        InputError: check ``predict.signature``; the model has no such signature.
    """
    signatures = SignatureDefMap()
    try:
        GetModelMetadataResponse.FromString(data).metadata[_SIGNATURES].Unpack(signatures)
        known = signatures.signature_def
        if signature not in known:
            raise InputError(
                "predict.signature",
                "the model has no such signature",
                found=signature,
                rule=f"one of {', '.join(sorted(known))[:200]}",
            )
        return {
            name: InputSpec(dtype_numbered(info.dtype).numpy, tuple(axis.size for axis in info.tensor_shape.dim))
            for name, info in known[signature].inputs.items()
        }
    except (DecodeError, RequestError) as error:
        raise UnreachableError(
            "predict.metadata", "the server's answer is no GetModelMetadataResponse", found=str(error)[:200]
        ) from error
