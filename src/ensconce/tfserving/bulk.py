"""The long values of a ``PredictRequest``, taken out of it without copying; the rest stays protobuf's to read.

protobuf copies ``tensor_content`` twice, and gives ``float_val`` element by element. Here the one long field of a
tensor is found by its lengths alone and cut out; what is left is a short message that says everything else, and
protobuf reads that. Whatever is not as every client writes it (a field that is unknown, or there twice, or in another
order) is not cut: then protobuf reads all of it. So nothing is understood here that protobuf would understand in
another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ensconce.tfserving.wire import MalformedError, length_at, varint

__all__ = ["SHORTEST", "Bulk", "cut_out"]

SHORTEST: Final = 4096
"""Bytes; shorter values are read faster by protobuf."""

# PredictRequest: model_spec, inputs, output_filter; of an entry of inputs: key, value.
_INPUTS: Final = 0x12
_OTHERS: Final = frozenset({0x0A, 0x1A})
_KEY: Final = 0x0A
_VALUE: Final = 0x12
# TensorProto: dtype and version_number, which are numbers; tensor_shape; what may be cut out, with the size of items.
_NUMBERS: Final = frozenset({0x08, 0x18})
_SHAPE: Final = 0x12
_ITEMS: Final = {
    0x22: ("tensor_content", 1),
    0x2A: ("float_val", 4),
    0x32: ("double_val", 8),
    0x4A: ("scomplex_val", 4),
    0x62: ("dcomplex_val", 8),
}
_MOST_INPUTS: Final = 256
_MOST_FIELDS: Final = 32


@dataclass(frozen=True, slots=True)
class Bulk:
    """The value of a field of ``TensorProto``, as it lies in the message.

    Attributes:
        field: its name.
        data: of ``tensor_content`` its bytes, of the others their numbers, little-endian, in a row; read-only.
        start: where that begins in the message.
        alone: whether the tensor has no other values.
    """

    field: str
    data: memoryview
    start: int
    alone: bool


def cut_out(data: bytes | bytearray | memoryview, shortest: int = SHORTEST) -> tuple[bytes, dict[str, Bulk]]:
    """A ``PredictRequest`` without its long values, and these by the input that they belong to.

    Args:
        data: the message, perhaps malformed; what is cut out of it are views.
        shortest: bytes of a value that is long, at least 1.

    Returns:
        all of the message, and nothing, where nothing can be cut out. What is returned as message is a
        ``PredictRequest`` if, and only if, ``data`` is one.
    """
    if len(data) >= shortest:
        view = memoryview(data).toreadonly()
        try:
            parts, bulk = _request(view, shortest)
        except (MalformedError, IndexError, UnicodeDecodeError):
            bulk = {}
        if bulk:
            return b"".join(parts), bulk
    return data if isinstance(data, bytes) else bytes(data), {}


def _request(data: memoryview, shortest: int) -> tuple[list[bytes | memoryview], dict[str, Bulk]]:
    parts: list[bytes | memoryview] = []
    bulk: dict[str, Bulk] = {}
    keys: set[bytes] = set()
    fields = at = 0
    while at < len(data):
        tag, start = data[at], at
        length, at = length_at(data, at + 1)
        at += length
        fields += 1
        if fields > _MOST_INPUTS:
            raise MalformedError
        if tag != _INPUTS:
            if tag not in _OTHERS:
                raise MalformedError
            parts.append(data[start:at])
            continue
        key, value = _entry(data[at - length : at])
        if key in keys:
            raise MalformedError
        keys.add(key)
        found = _tensor(value, at - len(value), shortest) if len(value) >= shortest else None
        if found is None:
            parts.append(data[start:at])
        else:
            rest, bulk[key.decode()] = found
            entry = b"".join((b"\x0a", varint(len(key)), key, b"\x12", varint(len(rest)), rest))
            parts += (b"\x12", varint(len(entry)), entry)
    return parts, bulk


def _entry(data: memoryview) -> tuple[bytes, memoryview]:
    """Key and value, which must be all there is, in this order."""
    if data[0] != _KEY:
        raise MalformedError
    length, at = length_at(data, 1)
    key = bytes(data[at : at + length])
    at += length
    if data[at] != _VALUE:
        raise MalformedError
    length, at = length_at(data, at + 1)
    if at + length != len(data):
        raise MalformedError
    return key, data[at:]


def _tensor(data: memoryview, offset: int, shortest: int) -> tuple[bytes, Bulk] | None:
    """A tensor without its long value, and that; None where it has none. A second one stays where it is.

    The tensor begins at ``offset`` in the message.
    """
    rest: list[memoryview] = []
    long: tuple[str, int, int] | None = None
    fields, at, seen = 0, 0, set()
    while at < len(data):
        tag, start = data[at], at
        fields += 1
        if fields > _MOST_FIELDS:
            raise MalformedError
        if tag in _NUMBERS:
            at = _after_number(data, at + 1)
            rest.append(data[start:at])
            continue
        length, value = length_at(data, at + 1)
        at = value + length
        if tag != _SHAPE and (tag not in _ITEMS or tag in seen):
            raise MalformedError
        seen.add(tag)
        if long is None and tag != _SHAPE and length >= shortest:
            name, size = _ITEMS[tag]
            if length % size:
                raise MalformedError
            long = name, value, at
        else:
            rest.append(data[start:at])
    if long is None:
        return None
    name, start, at = long
    return b"".join(rest), Bulk(name, data[start:at], offset + start, len(seen - {_SHAPE}) == 1)


def _after_number(data: memoryview, at: int) -> int:
    for end in range(at, at + 10):
        if data[end] < 0x80:
            return end + 1
    raise MalformedError
