from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address, hold_port, listen
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
