"""Examples as clients send them: an ``Input`` over gRPC, a body over REST.

The first byte says which. Whatever is accepted has as many rows as examples, takes no more memory than the limit says,
and is what protocol buffers' own reader finds in each example. Each row is what its example alone has: the others
may be other clients'.
"""

from __future__ import annotations

import json
import random
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.serving.json_examples import examples_request_from_json
from ensconce.tfserving.dtypes import STRING, dtype_named
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.inputs import examples_of
from ensconce.tfserving.messages import Example, Input, ModelSpec
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.signatures import MAX_AXIS
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_PROTO, _JSON = 0, 1
_LIMIT = 1 << 20
_MEMBERS = {"DT_FLOAT": "float_list", "DT_INT64": "int64_list", "DT_STRING": "bytes_list"}


def _spec(dtype: str, *shape: int, default: Any = None) -> FeatureSpec:
    return FeatureSpec("tensor", dtype_named(dtype), shape, default)


_FEATURES = {
    "f": _spec("DT_FLOAT", 2, default=(1.5, -0.0)),
    "i": _spec("DT_INT64", 2, default=(7, -1)),
    "n": _spec("DT_INT64", 16, default=tuple(range(16))),
    "s": _spec("DT_STRING", default=(b"none",)),
    "v": _spec("DT_INT64", -1),
    "w": _spec("DT_STRING", -1, 2),
}


def check(data: bytes) -> bool:
    """Read examples; see the module."""
    content = data[1:]
    if data and data[0] != _PROTO:
        request = attempt(lambda: examples_request_from_json(ModelSpec(name="m"), content), RequestError)
        if isinstance(request, Refused):
            return False
        content = request.input
    examples = attempt(lambda: examples_of(content, limit=_LIMIT), RequestError)
    if isinstance(examples, Refused):
        return False
    holds(1 <= len(examples) <= MAX_AXIS, "a number of examples that cannot be computed")
    holds(sum(map(len, examples)) <= _LIMIT, "more memory than allowed")
    columns = attempt(lambda: parse_examples(examples, _FEATURES, limit=_LIMIT), RequestError)
    if isinstance(columns, Refused):
        return False
    holds(sum(column.nbytes for column in columns.values()) <= _LIMIT, "more memory than allowed")
    for name, spec in _FEATURES.items():
        holds(len(columns[name]) == len(examples), "another number of rows than of examples")
        holds(columns[name].dtype == spec.dtype.numpy, "another type than the feature's")
    for index, example in enumerate(examples):
        for name, spec in _FEATURES.items():
            _compare(columns[name][index : index + 1], example, name, spec)
    _compare_alone(columns, examples)
    return True


def _compare_alone(columns: Any, examples: list[bytes]) -> None:
    """Each row is the one of its example alone."""
    for index, example in enumerate(examples):
        found = attempt(partial(parse_examples, [example], _FEATURES, limit=_LIMIT), RequestError)
        if isinstance(found, Refused):
            raise AssertionError("an example that is taken only among others")
        for name, spec in _FEATURES.items():
            if not spec.variable:
                one, other = columns[name][index : index + 1], found[name]
                same = (
                    one.tolist() == other.tolist() if spec.dtype.numpy == STRING else one.tobytes() == other.tobytes()
                )
                holds(same, "a row that is not its example's")


def _compare(row: Any, serialized: bytes, name: str, spec: FeatureSpec) -> None:
    """The row is what protocol buffers' own reader finds, where that and TensorFlow agree on what it should find."""
    try:
        features = Example.FromString(serialized).features.feature
    except DecodeError:
        # A feature that nobody asked for may be no feature.
        return
    if name not in features or features[name].WhichOneof("kind") != _MEMBERS[spec.dtype.name]:
        return
    values = list(getattr(features[name], _MEMBERS[spec.dtype.name]).value)
    found = row.ravel().tolist()
    if spec.variable:
        holds(not any(found[len(values) :]), "padding that is not empty")
        found = found[: len(values)]
    if spec.dtype.numpy == STRING or spec.dtype.name == "DT_INT64":
        holds(found == values, "other values")
    else:
        holds(np.array(found, np.float32).tobytes() == np.array(values, np.float32).tobytes(), "other values")


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    if not data or data[0] == _PROTO or rng.random() < 0.05:
        return havoc(data)
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree).encode())


def seeds() -> dict[str, bytes]:
    """Examples with every feature and with none, alone and with a context, in both formats."""
    full = {"f": [0.5, float("inf")], "i": [2**62, -3], "s": ["é"], "v": [1, 2, 300], "w": ["a", "b", "", "d" * 200]}
    documents: dict[str, Any] = {
        "good-list": {"examples": [full, {}, {"v": [1], "other": True}]},
        "good-context": {"context": {"f": [1.0, 2.0], "v": [5]}, "examples": [full, {}]},
        "good-base64": {"signature_name": "s", "examples": [{"s": {"b64": "/wA="}, "v": [True, 0]}]},
        "mixed": {"examples": [{"v": [1, 2.5]}]},
        "wrong-number": {"examples": [{"f": [1.0]}]},
    }
    made = {f"{name}-json": b"\x01" + json.dumps(value).encode() for name, value in documents.items()}
    for name, value in documents.items():
        if name != "mixed":
            request = examples_request_from_json(ModelSpec(), json.dumps(value).encode())
            # Maps come in another order in each process otherwise.
            stable: bytes = Input.FromString(request.input).SerializeToString(deterministic=True)
            made[f"{name}-proto"] = b"\0" + stable
    unpacked = b"\x0a\x0f\x0a\x0d\x0a\x01f\x12\x08\x12\x06\x0d\x00\x00\x80\x3f"
    made["cut-off-proto"] = b"\0\x0a" + bytes((len(unpacked) + 2,)) + b"\x0a" + bytes((len(unpacked),)) + unpacked
    made["greedy-proto"] = b"\0" + _greedy()
    empty = Input()
    empty.example_list.SetInParent()
    made["empty-proto"] = b"\0" + empty.SerializeToString()
    return made


def _greedy() -> bytes:
    """Three examples, of which the first one's list would go, by its lengths, to the end of the last one."""
    given = Input()
    for _ in range(2):
        example = given.example_list.examples.add()
        example.features.feature["n"].int64_list.value.extend(range(16))
    others: bytes = given.SerializeToString()
    behind = 2 * 20
    greedy = bytes((0x1A, 18 + behind)) + b"\x28\0" * 4 + bytes((0x0A, 8 + behind)) + b"\x01" * 8
    entry = b"\x0a\x01n\x12" + bytes((len(greedy),)) + greedy
    example_bytes = b"\x0a" + bytes((len(entry) + 2,)) + b"\x0a" + bytes((len(entry),)) + entry
    listed = b"\x0a" + bytes((len(example_bytes),)) + example_bytes + others[2:]
    return b"\x0a" + bytes((len(listed),)) + listed


TARGET = Target("examples", check, seeds, _mutate, max_size=4096)
