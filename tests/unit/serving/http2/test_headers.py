from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.http2.frames import ErrorCode, Http2Error
from ensconce.serving.http2.headers import HeaderDecoder, encode_block

PSEUDO = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/a/b"), (b":authority", b"x")]
NAME = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(lambda name: f"x{name}".encode())
VALUE = st.binary(max_size=400).filter(lambda value: not set(value) & {0, 10, 13})
FIELDS = st.lists(st.tuples(NAME, VALUE), max_size=8)


@given(FIELDS)
def test_what_we_encode_is_what_others_decode(fields: list[tuple[bytes, bytes]]) -> None:
    status = (b":status", b"415")
    assert list(Decoder().decode(encode_block([status, *fields]), raw=True)) == [status, *fields]


@given(st.lists(FIELDS, max_size=12))
def test_a_cache_changes_nothing(requests: list[list[tuple[bytes, bytes]]]) -> None:
    """Each request is sent three times, with a table that fills up and is turned over."""
    encoder, ours = Encoder(), HeaderDecoder(1 << 20)
    encoder.header_table_size = 256
    for fields in requests:
        for _ in range(3):
            request = ours.request(encoder.encode([*PSEUDO, *fields]))
            assert request is not None
            joined: dict[bytes, bytes] = {}
            for name, value in fields:
                joined[name] = joined[name] + b"," + value if name in joined else value
            assert (request.path, request.method, request.authority) == (b"/a/b", b"POST", b"x")
            assert dict(request.fields) == joined


def test_the_same_bytes_mean_something_else_once_the_table_has_changed() -> None:
    ours = HeaderDecoder(1 << 14)
    start = encode_block(PSEUDO[:3])
    first = ours.request(start + b"\x40\1a\1b")
    assert first is not None
    assert first.fields == {b"a": b"b"}
    newest = start + b"\xbe"
    assert [ours.request(newest), ours.request(newest)] == [first, first]
    assert ours.trailers(b"\x40\1c\1d")
    again = ours.request(newest)
    assert again is not None
    assert again.fields == {b"c": b"d"}
    # Two entries before, two after, and the newest equal, but another one: what it displaced is gone.
    ours.request(b"\x3f\x27" + start + b"\x40\1e\1f")
    ours.request(start + b"\x40\1e\1f")
    assert ours.request(newest) == ours.request(start + b"\x00\1e\1f")


def test_bounds() -> None:
    ours = HeaderDecoder(1000)
    with pytest.raises(Http2Error) as caught:
        ours.request(encode_block([*PSEUDO, (b"a", bytes(1000))]))
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_short_blocks_that_stand_for_much_are_not_kept() -> None:
    ours = HeaderDecoder(1 << 14)
    start = encode_block(PSEUDO[:3])
    ours.request(start + b"\x40" + encode_block([(b"a", 3900 * b"v")])[1:])
    once, twice = start + b"\xbe", start + b"\xbe\xbe"
    assert ours.request(start) is ours.request(start)
    assert ours.request(once) is not ours.request(once)
    long = ours.request(twice)
    assert long is not None
    assert long.size > 2 * 3900


@given(st.binary(max_size=60))
def test_any_bytes(block: bytes) -> None:
    try:
        HeaderDecoder(500).request(block)
    except Http2Error as error:
        assert error.code in (ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM)  # noqa: PT017  # some blocks are good


def test_fields_of_a_request() -> None:
    ours = HeaderDecoder(1 << 14)
    request = ours.request(
        encode_block([*PSEUDO[:3], (b"host", b"h"), (b"content-length", b"12"), (b"a", b"1"), (b"a", b"2")])
    )
    assert request is not None
    assert (request.authority, request.content_length, request.fields[b"a"]) == (b"h", 12, b"1,2")
