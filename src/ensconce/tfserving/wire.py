"""As much of protocol buffers' wire format as is read and written by hand, where messages would take too long."""

from __future__ import annotations

__all__ = ["MalformedError", "delimited", "length_at", "records", "varint"]

_LONGEST_LENGTH = 5


class MalformedError(ValueError):
    """These bytes are not what they should be."""


def varint(value: int) -> bytes:
    """A number, 0 or more, seven bits to a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(data: bytes, tag: int, most: int) -> list[bytes]:
    """The values of length-delimited fields, all of one tag, in order; no more than ``most`` of them.

    Raises:
        MalformedError: there is something else.
    """
    return [value for _, value in records(data, (tag,), most)]


def records(data: bytes, tags: tuple[int, ...], most: int) -> list[tuple[int, bytes]]:
    """The tags and values of length-delimited fields in order; no more than ``most`` of them.

    Args:
        data: a message.
        tags: the tags, each one byte, that may occur.
        most: fields that are read; the rest is not looked at.

    Raises:
        MalformedError: another tag, or a length beyond the end.
    """
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while at < end and len(found) < most:
        tag = data[at]
        if tag not in tags or at + 1 == end:
            raise MalformedError
        length = data[at + 1]
        at += 2
        if length > 0x7F:
            length, at = _long(data, at - 1)
        if length > end - at:
            raise MalformedError
        found.append((tag, data[at : at + length]))
        at += length
    return found


def length_at(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A length, and where what it counts begins.

    Raises:
        MalformedError: there is none, or it goes beyond the end.
    """
    if at >= len(data):
        raise MalformedError
    length = data[at]
    at += 1
    if length > 0x7F:
        length, at = _long(data, at - 1)
    if length > len(data) - at:
        raise MalformedError
    return length, at


def _long(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_LENGTH]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise MalformedError
