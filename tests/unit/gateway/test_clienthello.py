"""ClientHellos as real stacks make them, cut at every place, and bent in every field."""

from __future__ import annotations

import contextlib
import socket
import ssl

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import UnreachableError
from ensconce.gateway.clienthello import MAX_HELLO, NEED_MORE, parse_sni


def openssl_hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return out.read()


def records(message: bytes, size: int) -> bytes:
    """Lay a handshake message out in records of ``size`` bytes."""
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in parts)


def vector(width: int, value: bytes) -> bytes:
    return len(value).to_bytes(width) + value


def extension(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, value)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def message(extensions: bytes | None, rest: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\x00")
    if extensions is not None:
        body += vector(2, extensions)
    return b"\x01" + vector(3, body + rest)


def hello(extensions: bytes | None, rest: bytes = b"") -> bytes:
    return records(message(extensions, rest), 1 << 14)


def test_openssl() -> None:
    assert parse_sni(openssl_hello("Digits.Example.test")) == "digits.example.test"
    assert parse_sni(openssl_hello(None)) is None


def test_grpc() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        channel = grpc.secure_channel(
            f"127.0.0.1:{server.getsockname()[1]}",
            grpc.ssl_channel_credentials(),
            [("grpc.ssl_target_name_override", "digits.example.test")],
        )
        ready = grpc.channel_ready_future(channel)
        connection, _ = server.accept()
        with connection:
            data = connection.recv(65536)
        ready.cancel()
        channel.close()
    assert parse_sni(data) == "digits.example.test"


def test_incomplete_at_every_byte() -> None:
    whole = openssl_hello("digits.example.test")
    for length in range(len(whole)):
        assert parse_sni(whole[:length]) is NEED_MORE
    assert parse_sni(whole + b"early data, whatever it is") == "digits.example.test"


@pytest.mark.parametrize("size", [5, 7, 64, 100])
def test_over_several_records(size: int) -> None:
    data = records(openssl_hello("digits.example.test")[5:], size)
    assert parse_sni(data) == "digits.example.test"
    for length in range(len(data)):
        assert parse_sni(data[:length]) is NEED_MORE


def test_unknown_extensions_are_skipped() -> None:
    grease, ech = extension(0x1A1A, b""), extension(0xFE0D, bytes(300))
    assert parse_sni(hello(grease + ech + server_name(b"public.example") + grease + extension(0x0A0A, b"x"))) == (
        "public.example"
    )


def test_no_extensions_at_all() -> None:
    assert parse_sni(hello(None)) is None
    assert parse_sni(hello(b"")) is None


def test_large_hello_with_post_quantum_shares() -> None:
    assert parse_sni(hello(extension(51, bytes(8000)) + server_name(b"a.example"))) == "a.example"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "not a handshake record"),
        (b"PRI * HTTP/2.0\r\n", "not a handshake record"),
        (b"\x16\x02\x00\x00\x05", "not a TLS record"),
        (b"\x16\x03\x01\x00\x00", "empty or too long"),
        (b"\x16\x03\x01\x40\x01", "empty or too long"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "not a ClientHello"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "too long"),
        (records(message(server_name(b"a.example") + extension(51, bytes(5000))), 6), "too many records"),
        (hello(b"", rest=b"x"), "follows the extensions"),
        (b"\x16\x03\x01" + vector(2, message(b"") + b"x"), "follows it in its record"),
        (hello(server_name(b"a.example") + server_name(b"b.example")), "two server_name"),
        (hello(server_name(b"a.example", b"b.example")), "more than one server name"),
        (hello(server_name(b"a.example", kind=1)), "not a host name"),
        (hello(server_name(b"")), "not a DNS name"),
        (hello(server_name(b"a..example")), "not a DNS name"),
        (hello(server_name(b"a.example.")), "not a DNS name"),
        (hello(server_name(b"a\x00.example")), "not a DNS name"),
        (hello(server_name(b'a";}.example')), "not a DNS name"),
        (hello(server_name("ä.example".encode())), "not a DNS name"),
        (hello(server_name(b"a." * 130 + b"b")), "not a DNS name"),
        (hello(extension(0, vector(2, b"\x00\x00\x01a") + b"x")), "follows the list"),
        (hello(extension(0, b"")), "cut short"),
        (hello(b"\x00\x00\x00\xff"), "cut short"),
        (hello(b"\x00"), "cut short"),
    ],
)
def test_refusals(data: bytes, problem: str) -> None:
    with pytest.raises(UnreachableError, match=problem) as refused:
        parse_sni(data)
    assert refused.value.check == "tls.client_hello"


def test_endless_stream_is_refused() -> None:
    with pytest.raises(UnreachableError, match=r"too long|too many records"):
        parse_sni(records(b"\x01\x00\x40\x00" + bytes(MAX_HELLO), 100))


@given(st.binary(max_size=400))
def test_fuzz(data: bytes) -> None:
    for candidate in (data, records(b"\x01" + vector(3, data), 1 << 14), hello(data)):
        try:
            answer = parse_sni(candidate)
        except UnreachableError:
            continue
        assert answer is NEED_MORE or answer is None or answer == answer.lower()


WHOLE = openssl_hello("digits.example.test")


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_flipped(at: int, by: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= by
    with contextlib.suppress(UnreachableError):
        parse_sni(bytes(data))


@given(st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,4}", fullmatch=True), st.integers(100, 300))
def test_round_trip(name: str, size: int) -> None:
    assert parse_sni(records(message(server_name(name.upper().encode())), size)) == name
