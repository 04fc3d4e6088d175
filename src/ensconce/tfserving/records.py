"""TFRecord files: length, its checksum, data, its checksum; again and again until the file ends.

Layout and texts of errors: tensorflow/core/lib/io/record_reader.cc. The checksum is CRC-32C (RFC 3720 appendix B.4),
rotated and offset (tensorflow/core/lib/hash/crc32c.h, "masked").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np

from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["masked_crc32c", "read_records"]

_HEADER: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")
_POLYNOMIAL: Final = 0x82F63B78
_MASK: Final = 0xA282EAD8
_LANES: Final = 512
"""Parts of a long record that are summed side by side."""


def read_records(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The records of a file, in order. Fewer bytes than a header at the end are passed over, as the original does.

    Args:
        file: opened for reading, at its beginning.
        max_bytes: longest record to read.

    Raises:
        RequestError: DATA_LOSS, a checksum is wrong or a record is cut off; RESOURCE_EXHAUSTED, one is too long.
    """
    offset = 0
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        size, checksum = _HEADER.unpack(header)
        if masked_crc32c(header[:8]) != checksum:
            hint = "" if offset else " (Is this even a TFRecord file?)"
            raise RequestError(Code.DATA_LOSS, f"corrupted record at {offset}{hint}")
        if size > max_bytes:
            raise RequestError(Code.RESOURCE_EXHAUSTED, f"record at {offset} has {size} bytes, more than {max_bytes}")
        body = file.read(size + _CHECKSUM.size)
        if len(body) != size + _CHECKSUM.size:
            text = f"truncated record at {offset}' failed with Read less bytes than requested"
            raise RequestError(Code.DATA_LOSS, text)
        if masked_crc32c(body[:size]) != _CHECKSUM.unpack_from(body, size)[0]:
            raise RequestError(Code.DATA_LOSS, f"corrupted record at {offset + _HEADER.size}")
        yield body[:size]
        offset += _HEADER.size + len(body)


def masked_crc32c(data: bytes) -> int:
    """The checksum of ``data`` as the format stores it."""
    crc = _crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _table() -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    rows = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        rows = np.where(rows & 1, rows >> 1 ^ np.uint32(_POLYNOMIAL), rows >> 1).astype(np.uint32)
    return rows


_TABLE: Final = _table()
_ROWS: Final = _TABLE.tolist()


def _crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    lane = len(data) // _LANES
    if lane >= 16:
        state = _long(np.frombuffer(data, np.uint8, lane * _LANES).reshape(_LANES, lane), state)
        data = data[lane * _LANES :]
    for byte in data:
        state = _ROWS[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _long(lanes: np.ndarray[tuple[int, int], np.dtype[np.uint8]], state: int) -> int:
    """The state after all lanes: each is summed from nothing, then they are joined, since the checksum is linear."""
    sums = np.zeros(len(lanes), np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        sums = _TABLE[(sums ^ column) & 0xFF] ^ sums >> 8
    # What each bit of a state becomes over a lane of zeros.
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    for _ in range(lanes.shape[1]):
        bits = _TABLE[bits & 0xFF] ^ bits >> 8
    moved = bits.tolist()
    for part in sums.tolist():
        after = 0
        for bit in range(32):
            if state >> bit & 1:
                after ^= moved[bit]
        state = after ^ part
    return state
