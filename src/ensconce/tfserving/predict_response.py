"""``PredictResponse`` written as it goes over the wire, its arrays copied once.

protobuf would copy an array three times, and set each of a small answer's fields by a call of its own. What is written
here is checked against protobuf's own reading of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np

from ensconce.tfserving.dtypes import STRING, dtype_of
from ensconce.tfserving.tensor import FIXED_FIELDS, Array, string_bytes, to_proto
from ensconce.tfserving.wire import varint

__all__ = ["predict_response"]

_FEW: Final = 16
_NUMBERS: Final = {"int_val": 7, "int64_val": 10, "uint32_val": 16, "uint64_val": 17}
_MASK: Final = 2**64 - 1


def predict_response(
    model: str, version: int, signature: str, outputs: Mapping[str, Array], *, as_content: bool = False
) -> bytes:
    """A serialized ``PredictResponse``.

    Args:
        model: name of the model that answered.
        version: of it.
        signature: of that.
        outputs: by name; contiguous or not, of little-endian types or not.
        as_content: values in ``tensor_content``, not in the ``*_val`` field of their type
            (``--enable_serialization_as_tensor_content``).

    Raises:
        RequestError: INVALID_ARGUMENT, a dtype has no tensor type, or an object is neither ``bytes`` nor ``str``.
    """
    parts: list[bytes | memoryview] = []
    for name, array in outputs.items():
        parts += _output(name, array, as_content=as_content)
    parts.append(_model_spec(model, version, signature))
    return b"".join(parts)


def _output(name: str, array: Array, *, as_content: bool) -> tuple[bytes, bytes | memoryview]:
    """An entry of ``outputs``: what comes before the values, and those."""
    dtype = dtype_of(array)
    if dtype.numpy == STRING:
        if as_content:
            content = string_bytes(array)
            return _before(name, dtype.number, array.shape, b"\x22" if content else b"", len(content)), content
    elif as_content or dtype.field in FIXED_FIELDS:
        tag = b"\x22" if as_content else varint(FIXED_FIELDS[dtype.field] << 3 | 2)
        # Without bytes there is no field: it would be there, and empty.
        if not array.size:
            tag = b""
        flat = np.ascontiguousarray(array, dtype.numpy).reshape(-1)
        return _before(name, dtype.number, array.shape, tag, flat.nbytes), flat.view("u1").data
    elif dtype.field in _NUMBERS and 0 < array.size <= _FEW and dtype.numpy.names is None:
        values = b"".join([varint(value & _MASK) for value in array.ravel().tolist()])
        return _before(name, dtype.number, array.shape, varint(_NUMBERS[dtype.field] << 3 | 2), len(values)), values
    tensor = to_proto(array).SerializeToString()
    return _entry(name, len(tensor)), tensor


@lru_cache(maxsize=1024)
def _before(name: str, number: int, shape: tuple[int, ...], tag: bytes, length: int) -> bytes:
    """The beginning of an entry of ``outputs``, up to the values: ``tag`` and ``length`` are those of their field."""
    dims = b"".join([_field(b"\x12", b"\x08" + varint(size) if size else b"") for size in shape])
    fields = b"\x08" + varint(number) + (_field(b"\x12", dims) if dims else b"")
    if tag:
        fields += tag + varint(length)
    return _entry(name, len(fields) + length) + fields


def _entry(name: str, length: int) -> bytes:
    """The beginning of an entry of ``outputs``, up to the ``length`` bytes of its tensor."""
    key = _field(b"\x0a", name.encode())
    value = b"\x12" + varint(length)
    return b"\x0a" + varint(len(key) + len(value) + length) + key + value


@lru_cache(maxsize=1024)
def _model_spec(name: str, version: int, signature: str) -> bytes:
    number = _field(b"\x12", b"\x08" + varint(version) if version else b"")
    return _field(b"\x12", _text(b"\x0a", name) + number + _text(b"\x1a", signature))


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode()) if text else b""


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + varint(len(value)) + value
