from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.http1.chunks import Chunks
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError


def fed(pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    """The body, what came after it, and whether it is whole."""
    chunks, body, after = Chunks(Http1Limits()), b"", b""
    for piece in pieces:
        if chunks.is_done:
            after += piece
            continue
        parts, rest = chunks.feed(piece)
        body += b"".join(parts)
        after += rest
    return body, after, chunks.is_done


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.booleans(),
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
)
def test_pieces_of_any_size_give_the_body(chunks: list[bytes], extended: bool, sizes: list[int]) -> None:
    extension = b';a="b"' if extended else b""
    wire = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    wire += b"0\r\n" + (b"X: y\r\n" if extended else b"") + b"\r\nGET"
    pieces, at = [], 0
    for size in sizes * 50:
        pieces.append(wire[at : at + size])
        at += size
    pieces.append(wire[at:])
    assert fed([piece for piece in pieces if piece]) == (b"".join(chunks), b"GET", True)


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"0x3\r\nabc\r\n", 400),
        (b"+3\r\nabc\r\n", 400),
        (b" 3\r\nabc\r\n", 400),
        (b"3\nabc\r\n", 400),
        (b"\r\nabc\r\n", 400),
        (b";a\r\nabc\r\n", 400),
        (b"g\r\n", 400),
        (b"3 \r\nabc\r\n", 400),
        (b"3 ;a\r\nabc\r\n", 400),
        (b"3;\xff\r\nabc\r\n", 400),
        (b"0\r\nContent-Length: 3\r\n\r\n", 400),
        (b"0\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        (b"-1\r\n", 400),
        (b"1_0\r\n", 400),
        (b"f" * 16 + b"\r\n", 400),
        (b"3;\x00\r\nabc\r\n", 400),
        (b"3;a\rb\r\nabc\r\n", 400),
        (b"3\r\nabcd\r\n", 400),
        (b"3\r\nabc\n", 400),
        (b"3\r\nabc\rX", 400),
        (b"3" + b" " * 300 + b"\r\nabc\r\n", 400),
        (b"0\r\nbad trailer\r\n\r\n", 400),
        (b"0\r\nX: a\r\n b\r\n\r\n", 400),
        (b"0\r\n" + b"X: a\r\n" * 4000, 431),
        (b"1;" + b"a" * 240 + b"\r\nb\r\n", 413),
    ],
)
def test_bad_chunks_are_refused(wire: bytes, status: int) -> None:
    if status == 413:
        wire *= 100
    with pytest.raises(HttpError) as whole:
        fed([wire])
    assert whole.value.status == status
    with pytest.raises(HttpError) as bytewise:
        fed([wire[at : at + 1] for at in range(len(wire))])
    assert bytewise.value.status == status


def test_single_bytes_are_a_body() -> None:
    wire = b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"
    assert fed([wire])[0] == b"a" * 10_000
