from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address, hold_port, listen, listen_unix
from ensconce.errors import InputError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8500", Address("127.0.0.1", 8500)),
        ("digits.example.test:1", Address("digits.example.test", 1)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "host:١", "https://host"),
        *("::1:80", "[::1:80", "::1]:80", "[host]:80", "[]:80", "host:000080"),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Address.parse(text)
    assert refused.value.check == "address.format"


@given(st.text(max_size=30))
def test_fuzz(text: str) -> None:
    try:
        address = Address.parse(text)
    except InputError:
        return
    assert Address.parse(str(address)) == address


def test_a_held_port_is_its_server_s() -> None:
    with hold_port() as holder:
        address = Address(*holder.getsockname())
        for _ in range(2):  # and a server's after that
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            with listen(address, "test"), pytest.raises(InputError, match="cannot listen"):
                listen(address, "test")


def test_a_unix_socket_whose_server_lives_is_its(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o022)
    try:
        with listen_unix(path, "test", private=False) as first:
            assert stat.S_IMODE(path.stat().st_mode) == 0o755
            with pytest.raises(InputError, match="Address already in use") as caught:
                listen_unix(path, "test", private=False)
            assert caught.value.check == "test"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                first.setblocking(True)
                first.accept()[0].close()
    finally:
        os.umask(before)
    with listen_unix(path, "test", private=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_an_ended_server_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for _ in range(2):
        listen_unix(tmp_path / "s", "test", private=False).close()


@pytest.mark.parametrize("name", ["missing/socket", "x" * 200, "a file"])
def test_unix_sockets_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("which stays")
    with pytest.raises(InputError) as caught:
        listen_unix(tmp_path / name, "test", private=True)
    assert caught.value.check == "test"
    assert (tmp_path / "a file").read_text() == "which stays"
