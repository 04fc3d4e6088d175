from __future__ import annotations

import gzip
import zlib

import pytest

from ensconce.serving.http1.coding import accepts_gzip, gunzip, gzipped
from ensconce.serving.http1.messages import HttpError


def plain(data: bytes, limit: int = 1 << 20, memory: int = 1 << 30) -> bytes:
    left = memory

    def take(amount: int) -> bool:
        nonlocal left
        left -= amount
        return left >= 0

    return gunzip(data, limit, take)


def test_gzip_there_and_back() -> None:
    for body in (b"", b"a", b"abc" * 300_000):
        assert plain(gzipped(body)) == plain(gzip.compress(body)) == body
        assert gzip.decompress(gzipped(body)) == body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"no gzip", 400),
        (gzip.compress(b"a" * 100, mtime=0)[:-1], 400),
        (gzip.compress(b"a" * 100, mtime=0)[:12], 400),
        (gzip.compress(b"a", mtime=0) + b"b", 400),
        (gzip.compress(b"a", mtime=0) * 2, 400),
        (zlib.compress(b"a"), 400),
        (gzip.compress(b"a" * 100, mtime=0)[:-8] + bytes(8), 400),
        (gzip.compress(bytes((1 << 20) + 1), mtime=0), 413),
        (gzip.compress(bytes(100 << 20), mtime=0), 413),
    ],
)
def test_what_is_no_gzip_or_too_much_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        plain(data)
    assert caught.value.status == status


def test_memory_is_asked_for_before_it_is_used() -> None:
    with pytest.raises(HttpError) as caught:
        plain(gzip.compress(bytes(1 << 20)), memory=300_000)
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("field", "accepts"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("", False),
        ("*", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("x-gzips, br", False),
    ],
)
def test_who_takes_gzip(field: str, accepts: bool) -> None:
    assert accepts_gzip(field) is accepts
