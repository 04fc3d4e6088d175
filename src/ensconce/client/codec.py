"""Predictions as TensorFlow Serving's messages: arrays in a request, arrays out of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.messages import (
    PREDICTION_SERVICE,
    GetModelMetadataRequest,
    PredictRequest,
    PredictResponse,
)
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import from_proto, to_proto

__all__ = [
    "METADATA",
    "PREDICT",
    "SIGNATURES",
    "Array",
    "decode_response",
    "encode_metadata_request",
    "encode_request",
    "read_response",
]

Array = np.ndarray[Any, Any]

# A few bytes can stand for a large tensor, all of one value.
_MAX_TENSOR = 256 * 1024 * 1024

PREDICT = f"/{PREDICTION_SERVICE}/Predict"
METADATA = f"/{PREDICTION_SERVICE}/GetModelMetadata"

SIGNATURES = "signature_def"
"""The field of a model's metadata that holds its signatures."""


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
    return read_response(data)[0]


def read_response(data: bytes) -> tuple[dict[str, Array], int]:
    """The outputs in a ``PredictResponse``, and the version that computed them; 0 where it does not say.

    Raises:
        UnreachableError: as :func:`decode_response`.
    """
    try:
        response = PredictResponse.FromString(data)
        outputs = {name: from_proto(tensor, limit=_MAX_TENSOR) for name, tensor in response.outputs.items()}
        return outputs, response.model_spec.version.value
    except (DecodeError, RequestError) as error:
        raise UnreachableError(
            "predict.response", "the server's answer is no PredictResponse", found=str(error)[:200]
        ) from error


def encode_metadata_request(model: str, version: int | None) -> bytes:
    """A ``GetModelMetadataRequest`` for the signatures of a model; ``None`` for the newest version."""
    request = GetModelMetadataRequest(metadata_field=[SIGNATURES])
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    encoded: bytes = request.SerializeToString()
    return encoded
