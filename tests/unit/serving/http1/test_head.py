from __future__ import annotations

import contextlib
import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.http1.head import parse_head
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError

LIMITS = Http1Limits()


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_head_is_read() -> None:
    read = parse_head(
        head(b"POST /v1/models/a:predict?x HTTP/1.1", b"Host: a", b"X:\t b c \t", b"x: d", b"Content-Length: 007"),
        LIMITS,
    )
    assert (read.method, read.target, read.length) == ("POST", "/v1/models/a:predict?x", 7)
    assert read.fields["x"] == "b c, d"
    assert read.keep_alive
    assert not read.expects_continue


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        ((b"GET / HTTP/1.1", b"Host: a", b"Connection: x, CLOSE"), False),
        ((b"GET / HTTP/1.1", b"Host: a", b"Connection: keep-alive"), True),
        ((b"GET / HTTP/1.0",), False),
        ((b"GET / HTTP/1.0", b"Connection: Keep-Alive"), True),
    ],
)
def test_who_ends_the_connection(lines: tuple[bytes, ...], keep: bool) -> None:
    assert parse_head(head(*lines), LIMITS).keep_alive is keep


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://a/v1", "/v1"), (b"HTTPS://a:1", "/"), (b"*", "*"), (b"/http://a/b", "/http://a/b"), (b"a:443", "a:443")],
)
def test_targets_of_every_form(target: bytes, path: str) -> None:
    assert parse_head(head(b"GET " + target + b" HTTP/1.1", b"Host: a"), LIMITS).target == path


POST, HOST, TEN, CHUNKED = b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 10", b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((POST, HOST, TEN, CHUNKED), 400),
        ((POST, HOST, CHUNKED, TEN), 400),
        ((POST, HOST, TEN, TEN), 400),
        ((POST, HOST, b"Content-Length: 10, 10"), 400),
        ((POST, HOST, b"Content-Length: +10"), 400),
        ((POST, HOST, b"Content-Length: -1"), 400),
        ((POST, HOST, b"Content-Length: 1_0"), 400),
        ((POST, HOST, b"Content-Length: 0x10"), 400),
        ((POST, HOST, b"Content-Length: \xb2"), 400),
        ((POST, HOST, b"Content-Length:"), 400),
        ((POST, HOST, b"Content-Length: " + b"9" * 19), 413),
        ((POST, HOST, CHUNKED, CHUNKED), 400),
        ((POST, HOST, b"Transfer-Encoding: gzip, chunked"), 501),
        ((POST, HOST, b"Transfer-Encoding: xchunked"), 501),
        ((POST, HOST, b"Transfer-Encoding: chunked, identity"), 501),
        ((POST, HOST, b"Transfer-Encoding : chunked"), 400),
        ((POST, HOST, b"Transfer-Encoding\x00: chunked"), 400),
        ((POST, HOST, b" Transfer-Encoding: chunked"), 400),
        ((b"POST / HTTP/1.0", CHUNKED), 400),
        ((POST, HOST, b"X: a", b" folded"), 400),
        ((POST, HOST, b"X: a", b"\tfolded"), 400),
        ((POST, HOST, b"X: a\x00b"), 400),
        ((POST, HOST, b"X: a\rb"), 400),
        ((POST, HOST, b"X: a\nY: b"), 400),
        ((POST, HOST, b"X: a\x7f"), 400),
        ((POST, HOST, b"no colon"), 400),
        ((POST, HOST, b": no name"), 400),
        ((POST,), 400),
        ((POST, HOST, HOST), 400),
        ((POST, HOST, b"Expect: 200-ok"), 417),
        ((POST, HOST, *[b"X: y"] * 100), 431),
        ((b"GET / HTTP/2.0", HOST), 505),
        ((b"GET / HTTP/1.2", HOST), 505),
        ((b"GET  / HTTP/1.1", HOST), 400),
        ((b"GET / HTTP/1.1 ", HOST), 400),
        ((b"GET / a HTTP/1.1", HOST), 400),
        ((b"GET /\x80 HTTP/1.1", HOST), 400),
        ((b"GET\t/ HTTP/1.1", HOST), 400),
        ((b"(GET) / HTTP/1.1", HOST), 400),
        ((b"GET /", HOST), 400),
        ((b"GET /" + b"a" * 8192 + b" HTTP/1.1", HOST), 414),
    ],
)
def test_what_is_doubtful_is_refused(lines: tuple[bytes, ...], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_head(head(*lines), LIMITS)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "value", [b" " * 16000, b"\t " * 8000, b" a" * 8000, b"a" * 16000 + b"\x00", b":" * 16000, b"\xff" * 16000]
)
def test_no_head_takes_long(value: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(HttpError):
        parse_head(head(POST, HOST, b"X:" + value, b"y" * 200), LIMITS)
    assert time.process_time() - began < 0.5


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"X: ", b"Content-Length: ", b"Transfer-Encoding: ", b"Connection: "])
)
def test_what_is_accepted_is_what_others_read(junk: bytes, field: bytes) -> None:
    data = head(POST, HOST, field + junk)
    if data.index(b"\r\n\r\n") != len(data) - 4:
        return
    with contextlib.suppress(HttpError):
        ours = parse_head(data, LIMITS)
        other = h11.Connection(h11.SERVER)
        other.receive_data(data)
        event = other.next_event()
        assert isinstance(event, h11.Request)
        assert (event.method.decode(), event.target.decode()) == (ours.method, ours.target)
        assert len(event.headers) <= 2
        for name, value in event.headers:
            assert ours.fields[name.decode()] == value.decode("latin-1")
