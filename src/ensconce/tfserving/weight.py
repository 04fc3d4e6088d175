"""What a serialized message will cost in memory, told before it is parsed.

Two bytes on the wire can ask for a message of 150 (an empty entry of ``PredictRequest.inputs``), or for a string of 16:
what a stranger may send as bytes is no bound of what parsing makes of them. The walk here makes nothing, and ends as
soon as the bound is passed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from ensconce.tfserving.wire import MalformedError

__all__ = ["LIGHT", "MOST_WEIGHT", "TooHeavyError", "check_weight"]

LIGHT: Final = 64 * 1024
"""So many bytes make no more than 5 MB, whatever is in them, and need not be weighed."""
MOST_WEIGHT: Final = 2_000_000
"""Of records and messages, each message as heavy as 16 records, and so are 256 bytes of packed integers; at most about
100 MB, and of integers 500."""
_MESSAGE: Final = 16
# A byte of packed integers becomes up to 8, and the parser has made as many in vain when its list has grown.
_PACKED_SHIFT: Final = 4
# The parser's own bound (upb's kUpb_WireFormat_DefaultDepthLimit).
_DEEPEST: Final = 100
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_GROUPS: Final = (3, 4)
_LONGEST_VARINT: Final = 10
_INTEGERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_ENUM,
    }
)
_BYTES: Final = object()
"""Not to be looked into."""


class TooHeavyError(ValueError):
    """The message would make too many objects."""


def check_weight(descriptor: Any, data: bytes, most: int = MOST_WEIGHT) -> None:
    """Refuse what would make too many objects: elements of repeated fields, entries of maps, messages within messages.

    Floats and booleans that come packed, and the bytes of strings, are not counted: their memory is their bytes.

    Args:
        descriptor: of the message.
        data: serialized.
        most: records that are read, each message among them counted 16 times.

    Raises:
        TooHeavyError: there are more.
        MalformedError: this is no message.
    """
    try:
        _walk(data, 0, len(data), descriptor, most, 0)
    except IndexError:
        raise MalformedError from None


def _walk(data: bytes, at: int, end: int, descriptor: Any, left: int, depth: int) -> int:
    """Read one message; what is left of the bound."""
    if depth > _DEEPEST:
        raise MalformedError
    within = _heavy_in(descriptor)
    while at < end:
        left -= 1
        if left < 0:
            raise TooHeavyError
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, at - 1)
        if tag < 8:
            raise MalformedError  # no field has the number 0
        kind = tag & 7
        if kind == _DELIMITED:
            length = data[at]
            at += 1
            if length > 0x7F:
                length, at = _varint(data, at - 1)
            if length > end - at:
                raise MalformedError
            inner = within.get(tag, _BYTES)
            if inner is None:
                left -= length >> _PACKED_SHIFT
            elif inner is not _BYTES:
                left = _walk(data, at, at + length, inner, left - _MESSAGE, depth + 1)
            at += length
        elif kind == _VARINT:
            if data[at] > 0x7F:
                _, at = _varint(data, at)
            else:
                at += 1
        elif kind == _FIXED32:
            at += 4
        elif kind == _FIXED64:
            at += 8
        elif kind not in _GROUPS:  # what is in a group, which these messages have not, is read as if it were not in one
            raise MalformedError
    if at > end:
        raise MalformedError
    if left < 0:
        raise TooHeavyError
    return left


@lru_cache(maxsize=256)
def _heavy_in(descriptor: Any) -> dict[int, Any]:
    """By their tags, the fields that hold messages, with what they are, and those that hold packed integers: None."""
    return {
        field.number << 3 | _DELIMITED: field.message_type
        for field in descriptor.fields
        if field.message_type is not None or field.cpp_type in _INTEGERS
    }


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at
    raise MalformedError
