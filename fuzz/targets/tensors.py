"""Tensors as clients send them: protocol buffers over gRPC, JSON over REST.

The first byte says which. Whatever is accepted takes no more memory than the limit says, fits its signature or is
refused, and is the same after it was written and read again. Oracle for REST: numpy, over Python's own JSON.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.serving.json_outputs import outputs_to_json
from ensconce.serving.json_tensors import array_from_json, inputs_from_json, parse_body
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.messages import TensorProto
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.signatures import PREDICT_METHOD, Signature, TensorSpec
from ensconce.tfserving.tensor import from_proto, to_proto
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_PROTO, _JSON = 0, 1
_LIMIT = 1 << 20


def _spec(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec("tensor", dtype_named(dtype), shape)


_SIGNATURES = {
    "serving_default": Signature("serving_default", PREDICT_METHOD, {"x": _spec("DT_FLOAT", (-1, 2))}, {}),
    "many": Signature(
        "many",
        PREDICT_METHOD,
        {"flag": _spec("DT_BOOL", (-1,)), "number": _spec("DT_INT64", (-1,)), "text": _spec("DT_STRING", (-1, -1))},
        {},
    ),
    "byte": Signature("byte", PREDICT_METHOD, {"x": _spec("DT_UINT8", (-1,))}, {}),
}


def check(data: bytes) -> bool:
    """Read tensors; see the module."""
    return _check_proto(data[1:]) if not data or data[0] == _PROTO else _check_json(data[1:])


def _check_proto(data: bytes) -> bool:
    proto = TensorProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        return False
    array = attempt(lambda: from_proto(proto, limit=_LIMIT), RequestError)
    if isinstance(array, Refused):
        return False
    holds(array.nbytes <= _LIMIT, "more memory than allowed")
    holds(array.shape == tuple(dim.size for dim in proto.tensor_shape.dim), "another shape")
    again = from_proto(to_proto(array), limit=_LIMIT)
    holds(_same(array, again), "a round trip changes it")
    return True


def _check_json(data: bytes) -> bool:
    document = attempt(lambda: parse_body(data), RequestError)
    if isinstance(document, Refused):
        return False
    read = attempt(lambda: inputs_from_json(document, _SIGNATURES), RequestError)
    if isinstance(read, Refused):
        return False
    signature, inputs, form = read
    holds(set(inputs) == set(signature.inputs), "other inputs than the signature's")
    attempt(lambda: signature.check_inputs(inputs), RequestError)
    for name, array in inputs.items():
        holds(array.dtype == signature.inputs[name].dtype.numpy, "another type than the signature's")
        holds(array.size <= len(data), "more values than bytes")
    answer = attempt(lambda: outputs_to_json(inputs, form), RequestError)
    if not isinstance(answer, Refused):
        _check_answer(json.loads(answer), signature, inputs, form)
    return True


def _check_answer(document: Any, signature: Signature, inputs: dict[str, Any], form: str) -> None:
    """Whoever reads the answer gets what was written."""
    body = document["outputs" if form == "columnar" else "predictions"]
    for name, array in inputs.items():
        value = body
        if len(inputs) > 1:
            value = body[name] if form == "columnar" else [row[name] for row in body]
        holds(_same(array_from_json(value, signature.inputs[name].dtype), array), "the answer says something else")


def _same(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # Bit for bit: NaN with whatever payload, negative zero.
    return bool(np.array_equal(one, other)) if one.dtype.hasobject else one.tobytes() == other.tobytes()


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    if not data or data[0] == _PROTO or rng.random() < 0.05:
        return havoc(data)
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree).encode())


def seeds() -> dict[str, bytes]:
    """Tensors of many types, in each way that values can be given, and requests in both formats."""
    arrays = {
        "float": np.array([[1.5, -0.0], [np.inf, np.nan]], np.float32),
        "string": np.array([[b"a", b""], [b"\xff", b"long" * 9]], object),
        "half": np.array([1, 2], np.float16),
        "complex": np.array([1 + 2j], np.complex64),
        "bool": np.array([True, False]),
        "uint64": np.array([2**64 - 1], np.uint64),
        "int8": np.array([-128], np.int8),
        "empty": np.zeros((0, 3), np.int64),
    }
    made = {f"good-proto-{name}": b"\0" + to_proto(array).SerializeToString() for name, array in arrays.items()}
    content = TensorProto(dtype=1, tensor_content=b"\0" * 16)
    content.tensor_shape.dim.add(size=4)
    strings = TensorProto(dtype=7, tensor_content=b"\x01\x80\x01" + b"a" * 129)
    strings.tensor_shape.dim.add(size=2)
    filled = TensorProto(dtype=9, int64_val=[7])
    filled.tensor_shape.dim.add(size=1000)
    for name, proto in (("content", content), ("strings", strings), ("filled", filled)):
        made[f"good-proto-{name}"] = b"\0" + proto.SerializeToString()
    requests: dict[str, Any] = {
        "good-row": {"instances": [[1, 2.5], [3e38, -0.0]]},
        "good-columnar": {"inputs": [[1, 2]]},
        "good-many": {
            "signature_name": "many",
            "inputs": {"flag": [True], "number": [2**63 - 1], "text": [["é", {"b64": "AAE="}]]},
        },
        "good-rows": {"signature_name": "many", "instances": [{"flag": False, "number": 1, "text": ["a"]}]},
        "good-byte": {"signature_name": "byte", "instances": [0, 255]},
        "ragged": {"instances": [[1, 2], [3]]},
    }
    return made | {name: b"\x01" + json.dumps(value).encode() for name, value in requests.items()}


TARGET = Target("tensors", check, seeds, _mutate, max_size=4096)
