"""Predictions as clients ask for them: what our reader cuts out of a request is what protocol buffers' own finds there.

And where a pattern is made of a request, whatever matches it is read as protobuf reads it.

Each ``LONG`` in an input stands for a kilobyte of it and more, so that small inputs make long values.
Oracle: protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.tfserving.bulk import SHORTEST, cut_out
from ensconce.tfserving.messages import PredictRequest, TensorProto
from ensconce.tfserving.pattern import pattern_of
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import from_proto
from ensconce.tfserving.wire import varint
from fuzz.target import InvariantError, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_LIMIT = 1 << 20
_LONG = b"LONG"


def check(data: bytes) -> bool:
    """Read a request; see the module."""
    data = data.replace(_LONG, _LONG * (SHORTEST // len(_LONG)))
    rest, bulk = cut_out(data)
    whole, left = _read(data), _read(rest)
    holds((whole is None) == (left is None), "one reader refuses it, the other does not")
    if whole is None or left is None:
        return False
    holds(set(bulk) <= set(left.inputs), "values of no input")
    for name in left.inputs:
        cut = bulk.get(name)
        one = attempt(partial(from_proto, whole.inputs[name], limit=_LIMIT), RequestError)
        two = attempt(partial(from_proto, left.inputs[name], cut, limit=_LIMIT), RequestError)
        holds(isinstance(one, Refused) == isinstance(two, Refused), "one reading is refused, the other is not")
        if not isinstance(one, Refused) and not isinstance(two, Refused):
            holds(one.dtype == two.dtype and one.shape == two.shape, "another tensor")
            holds(np.array_equal(one, two) if one.dtype.hasobject else one.tobytes() == two.tobytes(), "other values")
        if cut is not None:
            number = TensorProto.DESCRIPTOR.fields_by_name[cut.field].number
            left.inputs[name].MergeFromString(varint(number << 3 | 2) + varint(len(cut.data)) + bytes(cut.data))
    written = left.SerializeToString(deterministic=True)
    holds(written == whole.SerializeToString(deterministic=True), "another message")
    inputs = {
        name: attempt(partial(from_proto, each, limit=_LIMIT), RequestError) for name, each in whole.inputs.items()
    }
    if not any(isinstance(each, Refused) for each in inputs.values()):
        _check_pattern(data, whole, inputs)
    return True


def _check_pattern(data: bytes, message: Any, inputs: Mapping[str, Any]) -> None:
    """A request with other values in the same places is the same but for these."""
    pattern = pattern_of(data, inputs)
    if pattern is None:
        return
    other = np.frombuffer(data, np.uint8).copy()
    for cut in cut_out(data, 1)[1].values():
        other[cut.start : cut.start + len(cut.data)] ^= 0x55
    found, same = pattern.inputs(other.tobytes()), _read(other.tobytes())
    if found is None or same is None:
        raise InvariantError("values that no reader takes")
    holds(found.keys() == set(same.inputs), "other inputs")
    for name, array in found.items():
        right = from_proto(same.inputs[name], limit=_LIMIT)
        holds((array.dtype, array.shape) == (right.dtype, right.shape), "another tensor than protobuf's")
        holds(array.tobytes() == right.tobytes(), "other values than protobuf's")
    for each in (message, same):
        each.inputs.clear()
    holds(message == same, "another request")


def _read(data: bytes) -> Any:
    try:
        return PredictRequest.FromString(data)
    except DecodeError:
        return None


def _field(tag: int, value: bytes) -> bytes:
    return bytes((tag,)) + varint(len(value)) + value


def seeds() -> dict[str, bytes]:
    """Requests with values in each form, as they are before they are lengthened: lengths count what will be there."""
    long = _LONG * (SHORTEST // len(_LONG))
    shape = _field(0x12, _field(0x12, b"\x08" + varint(SHORTEST // 4)))
    spec = _field(0x0A, _field(0x0A, b"m"))

    def entry(*tensors: bytes, key: bytes = b"x") -> bytes:
        return _field(0x12, _field(0x0A, key) + b"".join(_field(0x12, tensor) for tensor in tensors))

    floats, content = b"\x08\x01" + shape + _field(0x2A, long), b"\x08\x01" + shape + _field(0x22, long)
    made = {
        "good-floats": spec + entry(floats) + _field(0x1A, b"y"),
        "good-content": spec + entry(content),
        "good-doubles": entry(b"\x08\x02" + shape + _field(0x32, long)),
        "good-complex": entry(b"\x08\x08" + shape + _field(0x4A, long)),
        "good-both": entry(floats + _field(0x22, long)),
        "good-twice": entry(floats) + entry(content),
        "good-few": spec + entry(b"\x08\x01\x12\x04\x12\x02\x08\x02" + _field(0x2A, b"12345678")),
        "good-two": entry(floats) + entry(content, key=b"z"),
        "good-merged": entry(floats, floats),
        "good-unpacked": entry(floats + b"\x2d\0\0\0\0"),
        "odd-floats": entry(b"\x08\x01" + _field(0x2A, long + b"x")),
        "not-text": entry(floats, key=b"\xff"),
    }
    return {name: data.replace(long, _LONG) for name, data in made.items()}


TARGET = Target("predict-requests", check, seeds, max_size=4096, words=(_LONG, b"\x12\x80\x20", b"\x2a\x80\x20"))
