from __future__ import annotations

import pytest

from ensconce.serving.connections import client_of


@pytest.mark.parametrize(
    ("peername", "host", "told"),
    [
        (("192.0.2.1", 50000), "192.0.2.1", "192.0.2.1:50000"),
        (("2001:db8::1", 50000, 0, 0), "2001:db8::1", "[2001:db8::1]:50000"),
        (("::ffff:192.0.2.1", 50000, 0, 0), "192.0.2.1", "192.0.2.1:50000"),
        ("", "", "local"),
        (None, "", "local"),
    ],
)
def test_clients_have_one_form(peername: object, host: str, told: str) -> None:
    assert client_of(peername) == (host, told)
