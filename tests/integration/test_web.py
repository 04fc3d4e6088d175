"""A GET is bounded in time and length, whatever the server does: real sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.errors import UnreachableError
from ensconce.ratls.authority import CertificateAuthority
from ensconce.web import get

Listen = Callable[[Callable[[socket.socket], None]], Any]
OK = b"HTTP/1.1 200 OK\r\n"
TIMEOUT_S = 0.2
# Of a machine that has other work to do; a server that drips would be waited for far longer.
LATEST_S = 30


def error(problem: str, found: str) -> UnreachableError:
    return UnreachableError("web.test", problem, found=found)


def fetch(url: object, limit: int = 100, **more: Any) -> bytes:
    return get(f"http://{url}" if "://" not in str(url) else str(url), limit, error, **more)


def refused(url: object, **more: Any) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        fetch(url, **more)
    assert caught.value.check == "web.test"
    return caught.value


@pytest.fixture
def answering(listen: Listen) -> Iterator[Callable[[bytes], Any]]:
    """Opens servers that answer every request with these bytes, and keep what was asked."""
    servers = []

    def start(answer: bytes) -> Any:
        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                server.asked.append(connection.recv(4096))
                connection.sendall(answer)

        server = listen(talk)
        server.asked = []
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def dripping(listen: Listen) -> Iterator[Callable[[bytes], Any]]:
    """Opens servers that begin like this and then send a byte every few milliseconds, until nobody listens any more."""
    servers = []

    def start(begin: bytes) -> Any:
        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(begin)
                # Fewer bytes than the bounds of length allow until the test would fail.
                while not stop.wait(0.02):
                    connection.sendall(b"x")

        server = listen(talk)
        servers.append(server)
        return server

    stop = threading.Event()
    yield start
    stop.set()
    for server in servers:
        server.stop()


def test_an_answer(answering: Any) -> None:
    server = answering(OK + b"content-length: 5\r\n\r\nhello")
    assert fetch(f"{server.address}/a?b=c") == b"hello"
    (asked,) = server.asked
    assert asked.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"accept-encoding: identity" in asked.lower()
    assert f"host: {server.address}".encode() in asked.lower()
    chunked = answering(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    assert fetch(chunked.address) == b"hello"
    later = answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"\r\nto the end")
    assert fetch(later.address) == b"to the end"


def test_bounds_of_length(answering: Any) -> None:
    exact = answering(OK + b"content-length: 100\r\n\r\n" + bytes(100))
    assert len(fetch(exact.address)) == 100
    for head in (b"content-length: 101\r\n", b""):
        assert "too long" in refused(answering(OK + head + b"\r\n" + bytes(101)).address).problem
    # Whatever says that it is packed is taken as it is.
    packed = answering(OK + b"content-encoding: gzip\r\n\r\nxyz")
    assert fetch(packed.address) == b"xyz"
    endless = answering(OK + b"a: b\r\n" * 10_000)
    assert refused(endless.address).problem == "no answer"


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
def test_redirects_are_not_followed(status: bytes, answering: Any) -> None:
    good = answering(OK + b"content-length: 5\r\n\r\nhello")
    away = answering(b"HTTP/1.1 %s\r\nlocation: http://%s/\r\n\r\n" % (status, str(good.address).encode()))
    assert refused(away.address).problem == "it refuses"
    assert good.asked == []


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 2", OK + b"slow: ", b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"content-length: 9999\r\n\r\n"],
)
def test_a_server_that_drips(begin: bytes, dripping: Any) -> None:
    began = time.monotonic()
    failure = refused(dripping(begin).address, limit=10_000, timeout=TIMEOUT_S)
    assert TIMEOUT_S <= time.monotonic() - began < LATEST_S
    # The last byte comes before the deadline, or is looked at after it.
    assert "Timeout" in str(failure) or failure.problem == "its answer takes too long"


def test_a_tls_server_that_never_greets(dripping: Any) -> None:
    # The head of a record of 16 KiB: the handshake waits for it to be whole.
    server = dripping(b"\x16\x03\x03\x40\x00")
    began = time.monotonic()
    refused(f"https://{server.address}", timeout=TIMEOUT_S, tls=ssl.create_default_context())
    assert time.monotonic() - began < LATEST_S


def test_what_is_no_answer(answering: Any, find_port: Callable[[], int]) -> None:
    for answer in (b"", b"nonsense\r\n\r\n", OK, OK + b"content-length: 5\r\n\r\nhell"):
        assert refused(answering(answer).address).problem == "no answer"
    for url in (f"127.0.0.1:{find_port()}", "ftp://127.0.0.1/", "http://", "http://[::1", f"http://{'a' * 70}.test/"):
        assert refused(url).problem == "no answer"


def test_tls_is_checked(listen: Listen, tmp_path: Path) -> None:
    now = int(time.time())
    authority, other = (CertificateAuthority.create(name, now) for name in ("owner", "other"))
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.issue_server(key.public_key(), "localhost", now=now)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(chain + secret)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem")
    asked = []

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), serving.wrap_socket(connection, server_side=True) as secured:
            asked.append(secured.recv(4096))
            secured.sendall(OK + b"content-length: 5\r\n\r\nhello")

    server = listen(talk)
    port = server.address.port

    def trusting(trusted: CertificateAuthority) -> ssl.SSLContext:
        pem = trusted.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    assert fetch(f"https://localhost:{port}", tls=trusting(authority)) == b"hello"
    assert len(asked) == 1
    for url, tls in (
        (f"https://localhost:{port}", trusting(other)),
        (f"https://localhost:{port}", None),
        (f"https://127.0.0.1:{port}", trusting(authority)),
    ):
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused(url, tls=tls))
    assert len(asked) == 1
    server.stop()
