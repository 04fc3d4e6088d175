"""Classify and Regress: examples into requests, classes and values out of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.messages import (
    PREDICTION_SERVICE,
    ClassificationRequest,
    ClassificationResponse,
    Feature,
    RegressionRequest,
    RegressionResponse,
)

__all__ = ["CLASSIFY", "REGRESS", "Classes", "decode_classes", "decode_values", "encode_examples"]

CLASSIFY = f"/{PREDICTION_SERVICE}/Classify"
REGRESS = f"/{PREDICTION_SERVICE}/Regress"

Classes = list[tuple[str, float]]
"""The classes of one example: labels and scores."""


def encode_examples(
    path: str,
    model: str,
    examples: Sequence[Mapping[str, Any]],
    *,
    version: int | None = None,
    signature: str = "",
) -> bytes:
    """A ``ClassificationRequest`` or ``RegressionRequest``.

    Args:
        path: :data:`CLASSIFY` or :data:`REGRESS`.
        model: the model's name.
        examples: features by name: numbers, text or bytes, one or an array of them.
        version: ``None`` for the newest.
        signature: empty for ``serving_default``.

    Raises:
        InputError: check ``predict.examples``; a feature is of no type that examples have.
    """
    request = ClassificationRequest() if path == CLASSIFY else RegressionRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for features in examples:
        example = request.input.example_list.examples.add()
        for name, value in features.items():
            example.features.feature[name].CopyFrom(_feature(name, value))
    encoded: bytes = request.SerializeToString()
    return encoded


def _feature(name: str, value: Any) -> Any:
    array = np.asarray(value, dtype=object if isinstance(value, bytes) else None).reshape(-1)
    feature = Feature()
    if array.dtype.kind == "f":
        feature.float_list.value.extend(array.tolist())
    elif array.dtype.kind in "biu":
        feature.int64_list.value.extend(int(each) for each in array.tolist())
    elif array.dtype.kind in "OSU" and all(isinstance(each, str | bytes) for each in array.tolist()):
        feature.bytes_list.value.extend(each.encode() if isinstance(each, str) else each for each in array.tolist())
    else:
        raise InputError(
            "predict.examples",
            f"feature {name[:100]} is of no type that examples have",
            found=str(array.dtype),
            rule="integers, floating-point numbers, text or bytes",
        )
    return feature


def decode_classes(data: bytes) -> list[Classes]:
    """What a ``ClassificationResponse`` says of each example.

    Raises:
        UnreachableError: check ``predict.response``; this is no such message.
    """
    try:
        result = ClassificationResponse.FromString(data).result
    except DecodeError as error:
        raise _malformed("ClassificationResponse") from error
    return [[(each.label, each.score) for each in one.classes] for one in result.classifications]


def decode_values(data: bytes) -> npt.NDArray[np.float32]:
    """What a ``RegressionResponse`` says of each example.

    Raises:
        UnreachableError: check ``predict.response``; this is no such message.
    """
    try:
        result = RegressionResponse.FromString(data).result
    except DecodeError as error:
        raise _malformed("RegressionResponse") from error
    return np.array([each.value for each in result.regressions], dtype=np.float32)


def _malformed(kind: str) -> UnreachableError:
    return UnreachableError("predict.response", f"the server's answer is no {kind}")
