from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ensconce.serving.connections import ConnectionServer, client_of


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


class Server(ConnectionServer[Any]):
    def connection(self) -> asyncio.BaseProtocol:
        raise NotImplementedError

    def drain(self, connection: Any, grace: float) -> None:
        raise NotImplementedError


async def test_connections_end_at_different_ages() -> None:
    chances = iter((0.0, 0.5, 1.0))
    server = Server(most=1, handshake=1, age=100, chance=lambda: next(chances))
    assert [server.age() for _ in range(3)] == pytest.approx([90, 100, 110])
    await server.stop(0)
