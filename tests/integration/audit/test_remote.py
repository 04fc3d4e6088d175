"""A log watched over HTTP, and servers that do not answer as they should."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog
from ensconce.audit.remote import RemoteLog
from ensconce.audit.witness import watch
from ensconce.errors import InputError, IntegrityError, UnreachableError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
Listen = Callable[[Callable[[socket.socket], None]], Any]


def answering(log: AuditLog) -> Callable[[socket.socket], None]:
    """What the status address of a server does for /log/head and /log/consistency."""

    def talk(connection: socket.socket) -> None:
        with connection:
            target = urlsplit(connection.recv(4096).split(b" ")[1].decode())
            if target.path == "/log/head":
                body = log.head().to_bytes()
            else:
                query = parse_qs(target.query, strict_parsing=True)
                body = log.consistency(int(query["first"][0]), int(query["second"][0])).to_bytes()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return talk


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    return talk


def log_of(folder: Path, size: int, word: str = "a") -> AuditLog:
    log = AuditLog.open(folder, KEY, lambda: 1_769_860_800)
    log.append_many([(word, {"n": n}) for n in range(size)])
    return log


def test_a_log_is_watched_over_time(tmp_path: Path, listen: Listen) -> None:
    log = log_of(tmp_path / "audit", 7)
    server = listen(answering(log))
    source = RemoteLog(f"http://{server.address}/")
    assert watch(source, tmp_path / "kept", PUBLIC).earlier is None
    log.append("b")
    sighting = watch(source, tmp_path / "kept", PUBLIC)
    assert sighting.earlier is not None
    assert (sighting.earlier.size, sighting.head.size) == (7, 8)
    server.stop()
    other = listen(answering(log_of(tmp_path / "other", 12, "b")))
    with pytest.raises(IntegrityError) as caught:
        watch(RemoteLog(f"http://{other.address}"), tmp_path / "kept", PUBLIC)
    assert caught.value.check == "merkle.consistency"
    assert len(list(tmp_path.glob("kept.*.bent"))) == 1
    other.stop()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "no answer"),
        (b"nonsense\r\n\r\n", "no answer"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "it refuses"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + bytes(30000), "its answer is too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", "no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "its answer is no proof"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, problem: str, listen: Listen) -> None:
    server = listen(saying(answer))
    with pytest.raises(UnreachableError, match=problem) as caught:
        RemoteLog(f"http://{server.address}").consistency(1, 2)
    assert caught.value.check == "audit.source"
    server.stop()


def test_a_head_from_elsewhere_is_not_fetched(tmp_path: Path, listen: Listen) -> None:
    good = listen(answering(log_of(tmp_path / "audit", 7)))
    location = f"Location: http://{good.address}/log/head".encode()
    server = listen(saying(b"HTTP/1.1 302 Found\r\n" + location + b"\r\nContent-Length: 0\r\n\r\n"))
    with pytest.raises(UnreachableError, match="it refuses"):
        RemoteLog(f"http://{server.address}").head()
    assert good.accepted == 0
    good.stop()
    server.stop()


def test_a_server_that_never_answers(listen: Listen) -> None:
    held: list[socket.socket] = []
    server = listen(held.append)
    with pytest.raises(UnreachableError):
        RemoteLog(f"http://{server.address}", timeout=0.1).head()
    server.stop()
    with pytest.raises(UnreachableError):
        RemoteLog(f"http://{server.address}").head()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "x", "http://[::1", "https:///path"])
def test_no_url(url: str) -> None:
    with pytest.raises(InputError) as caught:
        RemoteLog(url)
    assert caught.value.check == "audit.url"


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as caught:
            RemoteLog("https://x", path)
        assert caught.value.check == "audit.ca_file"
