"""Asking a real server on the loopback interface, whose every byte is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ensconce.appraisal.http import Answer, Asker, Pace, StatusError, tls_context
from ensconce.errors import InputError, UnreachableError


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


GOOD = response(200, b"yes")


@dataclass
class Web:
    """Answers one request after the other, and notes what was asked."""

    answers: list[bytes]
    context: ssl.SSLContext | None = None
    asked: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    url: str = ""

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
            with stream:
                while request := stream.recv(65536):
                    self.asked.append(request.split()[1].decode())
                    stream.sendall(self.answers.pop(0))

    def ask(self, ca_file: Path | None = None) -> Answer:
        async def ask() -> Answer:
            pace = Pace(total_s=10, pause_s=1, jitter=lambda: 0.5, sleep=self.pause)
            async with Asker(tls_context(ca_file), pace, {461: "it does not know this platform"}) as asker:
                return await asker.get(self.url)

        return asyncio.run(ask())

    def refuse(self, ca_file: Path | None = None) -> UnreachableError:
        with pytest.raises(UnreachableError) as caught:
            self.ask(ca_file)
        assert caught.value.remedy
        assert self.url in str(caught.value)
        return caught.value


@pytest.fixture
def web(listen: Callable[..., Any]) -> Iterator[Callable[..., Web]]:
    """Starts servers with these answers."""
    listeners = []

    def start(*answers: bytes, context: ssl.SSLContext | None = None) -> Web:
        made = Web(list(answers), context)
        listeners.append(listener := listen(made.talk))
        made.url = f"http{'s' if context else ''}://{listener.address}/x"
        return made

    yield start
    for listener in listeners:
        listener.stop()


@pytest.mark.parametrize("status", [400, 401, 404, 410, 460, 461, 462, 599])
def test_a_refusal_is_final(web: Callable[..., Web], status: int) -> None:
    server = web(response(status))
    error = server.refuse()
    assert isinstance(error, StatusError)
    assert (error.check, error.status, error.found) == ("pccs.status", status, f"HTTP status {status}")
    assert ("does not know" in error.problem) is (status == 461)
    assert server.asked == ["/x"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_failure_that_may_pass_is_tried_three_times(web: Callable[..., Web], status: int) -> None:
    server = web(*[response(status)] * 3)
    assert server.refuse().check == "pccs.status"
    assert server.asked == ["/x"] * 3
    assert server.pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7.0), ("86400", 20.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5), ("-1", 0.5)]
)
def test_it_waits_as_long_as_it_is_told_within_bounds(web: Callable[..., Web], said: str, waited: float) -> None:
    server = web(response(503, Retry_After=said), GOOD)
    assert server.ask().body == b"yes"
    assert server.pauses == [waited]


def test_redirects_are_not_followed(web: Callable[..., Web]) -> None:
    elsewhere = web(GOOD)
    for status in (301, 302, 307, 308):
        assert "redirects" in web(response(status, Location=elsewhere.url)).refuse().problem
    assert elsewhere.asked == []


def test_answers_have_a_bound(web: Callable[..., Web]) -> None:
    most = bytes(1024 * 1024)
    assert web(response(200, most)).ask().body == most
    assert web(response(200, most + b"\0")).refuse().check == "pccs.size"


def test_what_was_packed_unasked_is_not_unpacked(web: Callable[..., Web]) -> None:
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    assert web(response(200, packed, Content_Encoding="gzip")).refuse().check == "pccs.encoding"


def test_nobody_there(web: Callable[..., Web]) -> None:
    server = web()
    server.url = "http://127.0.0.1:1/x"
    assert server.refuse().check == "pccs.connect"
    assert len(server.pauses) == 2


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://localhost", "file:///etc", "http://"])
def test_urls_that_are_none(web: Callable[..., Web], url: str) -> None:
    server = web()
    server.url = url
    with pytest.raises(InputError) as caught:
        server.ask()
    assert caught.value.check == "pccs.url"


def test_a_proxy_in_the_environment_is_not_asked(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert web(GOOD).ask().body == b"yes"


def self_signed(host: str, folder: Path, *, age_days: int = 1) -> tuple[Path, ssl.SSLContext]:
    """A server's certificate as a PCCS makes its own: for clients to trust, and for a server to present."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pccs")])
    begin = datetime.now(UTC) - timedelta(days=age_days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, both = folder / "ca.pem", folder / "both.pem"
    trusted.write_bytes(certificate.public_bytes(Encoding.PEM))
    both.write_bytes(trusted.read_bytes() + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return trusted, context


@pytest.mark.parametrize(
    ("host", "age_days", "trust", "check"),
    [
        ("127.0.0.1", 1, True, None),
        ("127.0.0.1", 1, False, "pccs.tls"),
        ("127.0.0.2", 1, True, "pccs.tls"),
        ("127.0.0.1", 9, True, "pccs.tls"),
    ],
)
def test_tls_is_verified(
    web: Callable[..., Web], tmp_path: Path, host: str, age_days: int, trust: bool, check: str | None
) -> None:
    trusted, context = self_signed(host, tmp_path, age_days=age_days)
    server = web(GOOD, context=context)
    ca_file = trusted if trust else None
    if check is None:
        assert server.ask(ca_file).body == b"yes"
    else:
        assert server.refuse(ca_file).check == check
        assert server.asked == []
        assert server.pauses == []  # another try would change nothing


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for path in (tmp_path / "missing.pem", tmp_path, tmp_path / "empty.pem"):
        with pytest.raises(InputError) as caught:
            tls_context(path)
        assert caught.value.check == "pccs.ca_file"
