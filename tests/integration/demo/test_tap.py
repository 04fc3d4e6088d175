from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensconce.addresses import Address
from ensconce.demo.tap import Tap
from ensconce.errors import InputError


@pytest.fixture
def shouter(listen: Callable[..., Any]) -> Iterator[Address]:
    """Sends everything back doubled, until the client ends."""

    def talk(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data * 2)

    listener = listen(talk)
    yield listener.address
    listener.stop()


def converse(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while part := client.recv(65536):
            got += part
    return got


def test_records_both_directions_of_each_connection(shouter: Address, tmp_path: Path) -> None:
    large = os.urandom(300_000)
    with Tap(shouter, tmp_path / "spied") as tap:
        assert converse(tap.address, b"one") == b"oneone"
        assert len(converse(tap.address, large)) == 600_000
    recorded = {file.name: file.read_bytes() for file in (tmp_path / "spied").iterdir()}
    assert recorded["0001.to-server"] == b"one"
    assert recorded["0001.to-client"] == b"oneone"
    assert recorded["0002.to-server"] == large
    assert len(recorded["0002.to-client"]) == 600_000
    assert len(recorded) == 4
    assert tap.recorded == 9 + 900_000


def test_what_cannot_be_recorded_does_not_pass(shouter: Address, tmp_path: Path) -> None:
    tap = Tap(shouter, tmp_path, limit=10)
    tap.start()
    with contextlib.suppress(ConnectionError):
        assert converse(tap.address, b"four") == b""
    with pytest.raises(InputError) as refused:
        tap.stop()
    assert refused.value.check == "tap.limit"
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10


def test_a_target_that_is_away_closes_the_connection(tmp_path: Path, find_port: Callable[[], int]) -> None:
    with Tap(Address("127.0.0.1", find_port()), tmp_path) as tap:
        assert converse(tap.address, b"") == b""


def test_stop_cuts_what_is_open(shouter: Address, tmp_path: Path) -> None:
    with Tap(shouter, tmp_path) as tap:
        client = socket.create_connection(tap.address, timeout=30)
        client.sendall(b"x")
        assert client.recv(10) == b"xx"
    with client:
        assert client.recv(10) == b""
    tap.stop()


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    tap = Tap(Address("127.0.0.1", 1), tmp_path, host="192.0.2.1")
    with pytest.raises(InputError) as refused:
        tap.start()
    assert refused.value.check == "tap.address"


def test_connections_that_are_cut_leave_no_complaint(
    shouter: Address, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Tap(shouter, tmp_path / "spied") as tap, socket.create_connection(tap.address, timeout=30) as client:
        client.sendall(b"one")
        assert client.recv(6) == b"oneone"
        tap.stop()
    assert caplog.records == []
