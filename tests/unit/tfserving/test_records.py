from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.tfserving.records import masked_crc32c, read_records
from ensconce.tfserving.refusal import Code, RequestError


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc32c(size)) + data + struct.pack("<I", masked_crc32c(data))


def read(data: bytes, limit: int = 1 << 20) -> list[bytes]:
    return list(read_records(io.BytesIO(data), limit))


def unmasked(data: bytes) -> int:
    rotated = (masked_crc32c(data) - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_checksums(data: bytes, crc: int) -> None:
    assert unmasked(data) == crc


def test_what_tensorflow_wrote() -> None:
    assert read(bytes.fromhex("0500000000000000eab2043e68656c6c6fbb1f1c19")) == [b"hello"]


@given(st.integers(0, 40_000), st.integers(0, 255))
def test_long_and_short_records_are_summed_alike(size: int, seed: int) -> None:
    data = bytes((seed + 31 * index + index // 256) & 0xFF for index in range(size))
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    assert unmasked(data) == state ^ 0xFFFFFFFF


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_records_come_as_they_were_written(records: list[bytes]) -> None:
    assert read(b"".join(record(each) for each in records)) == records


GOOD = record(b"hello")


# Texts and offsets: what TensorFlow 2.21 answers to the same bytes.
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x01" + GOOD[1:], "corrupted record at 0 (Is this even a TFRecord file?)"),
        (GOOD[:-1] + b"\0", "corrupted record at 12"),
        (GOOD[:14] + b"\0" + GOOD[15:], "corrupted record at 12"),
        (GOOD[:-1], "truncated record at 0' failed with Read less bytes than requested"),
        (GOOD[:12], "truncated record at 0' failed with Read less bytes than requested"),
        (GOOD + b"\xff" * 12, "corrupted record at 21"),
    ],
)
def test_damage(data: bytes, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(data)
    assert (caught.value.code, caught.value.problem) == (Code.DATA_LOSS, text)


def test_every_changed_bit_is_found() -> None:
    for index in range(len(GOOD) * 8):
        data = bytearray(GOOD)
        data[index // 8] ^= 1 << index % 8
        with pytest.raises(RequestError):
            read(bytes(data))


@pytest.mark.parametrize("end", range(12))
def test_less_than_a_header_at_the_end_is_nothing(end: int) -> None:
    assert read(GOOD + GOOD[:end]) == [b"hello"]


def test_a_record_that_claims_too_much_is_not_read() -> None:
    size = struct.pack("<Q", 2**63)
    claim = size + struct.pack("<I", masked_crc32c(size))
    with pytest.raises(RequestError) as caught:
        read(claim)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert read(GOOD, limit=5) == [b"hello"]
    with pytest.raises(RequestError):
        read(GOOD, limit=4)
