"""Requests and answers on the wire: TensorFlow Serving's gRPC and REST, the V2 protocol's gRPC, JSON with base64.

The V2 protocol's messages are those of the Open Inference Protocol (``grpc_predict_v2.proto``); what is needed of them
is written by hand.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

import numpy as np

from ensconce.client.codec import decode_response
from ensconce.tfserving.messages import PredictRequest

__all__ = [
    "GRPC_HEADERS", "JSON_HEADERS", "base64_body", "base64_classes", "framed", "rest_body", "rest_classes",
    "tfs_body", "tfs_classes", "v2_body", "v2_classes",
]  # fmt: skip

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
JSON_HEADERS = ("content-type: application/json",)
DT_FLOAT = 1


def framed(message: bytes) -> bytes:
    """A gRPC message as it is on the wire: not compressed, its length, itself."""
    return struct.pack(">BI", 0, len(message)) + message


def tfs_body(model: str, name: str, images: np.ndarray) -> bytes:
    """``PredictRequest`` with one float32 tensor in ``tensor_content``, as ``tf.make_tensor_proto`` makes it."""
    request = PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs[name]
    tensor.dtype = DT_FLOAT
    for size in images.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = images.astype("<f4").tobytes()
    body: bytes = request.SerializeToString()
    return body


def tfs_classes(message: bytes) -> list[int]:
    """``classes`` of a ``PredictResponse``."""
    return [int(each) for each in decode_response(message)["classes"]]


def rest_body(images: np.ndarray) -> bytes:
    """TensorFlow Serving's REST API, row format."""
    return json.dumps({"instances": images.tolist()}).encode()


def rest_classes(body: bytes) -> list[int]:
    """The classes of its answer."""
    return [int(row["classes"]) for row in json.loads(body)["predictions"]]


def v2_body(model: str, images: np.ndarray) -> bytes:
    """``ModelInferRequest`` with one raw float32 tensor."""
    shape = b"".join(varint(size) for size in images.shape)
    tensor = field(1, b"images") + field(2, b"FP32") + field(3, shape)
    return field(1, model.encode()) + field(5, tensor) + field(7, images.astype("<f4").tobytes())


def v2_classes(message: bytes) -> list[int]:
    """The tensor ``classes`` (INT64, raw) of a ``ModelInferResponse``."""
    names, raw = [], []
    for number, value in fields(message):
        if number == 5:
            names.append(next(name for key, name in fields(value) if key == 1))
        elif number == 6:
            raw.append(value)
    return [int(each) for each in np.frombuffer(raw[names.index(b"classes")], "<i8")]


def base64_body(images: np.ndarray, *, listed: bool) -> bytes:
    """``{"images": TEXT}``, or a list of one text."""
    text = base64.b64encode(images.astype("<f4").tobytes()).decode()
    return json.dumps({"images": [text] if listed else text}).encode()


def base64_classes(body: bytes) -> list[int]:
    """The classes of its answer."""
    found = json.loads(body)
    return [int(each) for each in (found[0] if isinstance(found, list) else found)["classes"]]


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """A number as protocol buffers have it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protocol buffer, others passed over."""
    at = 0
    while at < len(message):
        tag, at = _read(message, at)
        size, at = _read(message, at)
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + size]
            at += size


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
