"""Messages within a body: five bytes before each (grpc/doc/PROTOCOL-HTTP2.md), gzip, and the timeouts of calls."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["PREFIX_SIZE", "Prefix", "read_prefix", "read_timeout", "unzip", "unzipped_size", "write_prefix"]

PREFIX_SIZE: Final = 5
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_TIMEOUT: Final = 8
_GZIP: Final = 16 + zlib.MAX_WBITS
# RFC 1952: a header of 10 bytes and an end of 8, the last 4 of them the size of what is compressed.
_SHORTEST_GZIP: Final = 18
_MAGIC: Final = b"\x1f\x8b"
# Deflate makes at most 258 bytes of two bits.
_MOST_RATIO: Final = 1032


@dataclass(frozen=True, slots=True)
class Prefix:
    """What comes before a message: whether it is compressed, and its length."""

    is_compressed: bool
    length: int


def read_prefix(data: bytes | bytearray | memoryview, longest: int, *, encoding: bytes) -> Prefix:
    """The prefix at the beginning of at least five bytes.

    Args:
        data: begins with it.
        longest: most bytes that a message may have.
        encoding: the call's ``grpc-encoding``.

    Raises:
        RequestError: RESOURCE_EXHAUSTED, with the text of gRPC's own servers (message_size_filter.cc): the message is
            too long; INTERNAL: a flag is unknown, or there is no encoding.
    """
    flag, length = data[0], int.from_bytes(data[1:PREFIX_SIZE])
    if flag > 1:
        raise RequestError(Code.INTERNAL, f"Unknown flags {flag} before a message")
    if flag == 1 and encoding != b"gzip":
        raise RequestError(Code.INTERNAL, "A message is compressed, but no encoding is named")
    check_length(length, longest)
    return Prefix(flag == 1, length)


def check_length(length: int, longest: int) -> None:
    """Refuse a message that is too long.

    Raises:
        RequestError: RESOURCE_EXHAUSTED.
    """
    if length > longest:
        raise RequestError(
            Code.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({length} vs. {longest})"
        )


def write_prefix(length: int, longest: int) -> bytes:
    """What is sent before a message.

    Raises:
        RequestError: RESOURCE_EXHAUSTED: it is too long.
    """
    if length > longest:
        raise RequestError(Code.RESOURCE_EXHAUSTED, f"SERVER: Sent message larger than max ({length} vs. {longest})")
    return b"\0" + length.to_bytes(4)


def unzipped_size(data: bytes | bytearray | memoryview, longest: int) -> int:
    """The bytes of a message that came compressed with gzip, as its own end claims; :func:`unzip` makes no more.

    Raises:
        RequestError: RESOURCE_EXHAUSTED: it would be too long; INTERNAL: it is no gzip.
    """
    size = int.from_bytes(data[-4:], "little")
    if len(data) < _SHORTEST_GZIP or data[:2] != _MAGIC or size > _MOST_RATIO * len(data):
        raise RequestError(Code.INTERNAL, "A message cannot be decompressed")
    check_length(size, longest)
    return size


def unzip(data: bytes | bytearray | memoryview, size: int) -> bytes:
    """A message that came compressed with gzip, of exactly ``size`` bytes.

    Raises:
        RequestError: INTERNAL: it is no gzip, or of another size.
    """
    stream = zlib.decompressobj(_GZIP)
    try:
        message = stream.decompress(data, size + 1)
        if len(message) <= size and not stream.eof:
            message += stream.flush()
    except zlib.error:
        raise RequestError(Code.INTERNAL, "A message cannot be decompressed") from None
    if len(message) != size or not stream.eof or stream.unused_data:
        raise RequestError(Code.INTERNAL, "A message cannot be decompressed")
    return message


def read_timeout(text: bytes) -> float:
    """The seconds of a ``grpc-timeout``: up to eight digits and a unit.

    Raises:
        RequestError: INTERNAL: it is none.
    """
    digits, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _LONGEST_TIMEOUT:
        raise RequestError(Code.INTERNAL, "A grpc-timeout cannot be read")
    return int(digits) * unit
