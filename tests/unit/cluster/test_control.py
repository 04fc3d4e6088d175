"""What the supervisor and the host's commands refuse of each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensconce.cluster import control
from ensconce.errors import InputError, UnreachableError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield ours, theirs


@pytest.mark.parametrize("said", [b"", b'{"do": "status"}', b"[]\n", b'"status"\n', b"7\n"])
def test_what_is_no_message(pair: tuple[socket.socket, socket.socket], said: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(InputError) as caught:
        control.read_message(ours)
    assert caught.value.check == "host.control"


@pytest.mark.parametrize("said", [b"{\n", b'{"do": "stop", "do": "status"}\n', b"\xff\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_json(pair: tuple[socket.socket, socket.socket], said: bytes) -> None:
    ours, theirs = pair
    threading.Thread(target=theirs.sendall, args=(said,), daemon=True).start()
    with pytest.raises(ValueError, match=r"."):
        control.read_message(ours)


def test_a_message_without_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=theirs.sendall, args=(b" " * (control.MAX_MESSAGE + 1),), daemon=True)
    sender.start()
    with pytest.raises(InputError, match="too long"):
        control.read_message(ours)
    sender.join(30)


@pytest.mark.parametrize("answer", [b"", b"{\n", b"[]\n"])
def test_a_supervisor_that_does_not_answer(tmp_path: Path, answer: bytes) -> None:
    run = tmp_path / "run"
    run.mkdir()

    def serve() -> None:
        stream, _ = server.accept()
        with stream:
            stream.recv(65536)
            stream.sendall(answer)

    with control.listen(run) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises((UnreachableError, InputError)):
            control.ask(tmp_path, {"do": "status"})
        thread.join(30)
    (run / "control.sock").unlink()
    with pytest.raises(UnreachableError, match="nothing runs"):
        control.ask(tmp_path, {"do": "status"})
