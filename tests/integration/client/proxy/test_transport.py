"""Attested connections whose bytes the event loop moves."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ensconce.client.attested import AttestedSocket
from ensconce.client.tunnel import Tunnel
from ensconce.errors import UnreachableError
from ensconce.proxy import transport
from ensconce.proxy.back import Backs
from ensconce.proxy.transport import open_through
from ensconce.times import since_boot

THREADS = ThreadPoolExecutor(4)


async def until(reached) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.005)


async def test_a_connection_ends_with_what_it_was_accepted_for(world, probe) -> None:
    service = world.service(probe().target)

    def attest() -> AttestedSocket:
        return replace(service.attest(service.targets[0], "h2"), deadline=since_boot() + 0.2)

    backs = Backs()
    with Tunnel(attest) as tunnel:
        connection = await open_through(tunnel, THREADS, backs.connection)
        await until(lambda: connection.has_room and connection.is_open)
        assert not tunnel.is_lost
        await until(lambda: connection.is_lost)
        assert tunnel.is_lost
    await backs.stop(0)


@pytest.mark.parametrize("does", ["write", "read"])
async def test_nothing_is_said_or_heard_after_a_sleep_in_which_that_ended(world, recorder, monkeypatch, does) -> None:
    replica = recorder(world.replica(), alpn=["h2"])
    service = world.service(replica.target)
    heard: list[bytes] = []

    class Hears(asyncio.BufferedProtocol):
        room = bytearray(1 << 15)
        is_lost = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def get_buffer(self, _hint: int) -> bytearray:
            return self.room

        def buffer_updated(self, count: int) -> None:
            heard.append(bytes(self.room[:count]))

        def connection_lost(self, _error: Exception | None) -> None:
            self.is_lost = True

    with Tunnel(lambda: service.attest(replica.target, "h2")) as tunnel:
        said = await open_through(tunnel, THREADS, Hears)
        said.transport.write(b"before")
        await until(lambda: heard == [b"BEFORE"])
        if does == "read":
            # The answer is made while the machine sleeps.
            said.transport.write(b"during")
        monkeypatch.setattr(transport, "since_boot", lambda: since_boot() + 30 * 86400)
        if does == "write":
            said.transport.write(b"after")
        await until(lambda: said.is_lost)
        await until(lambda: replica.ended == 1)
        assert b"after" not in replica.received
        assert heard == [b"BEFORE"]


async def test_who_cannot_bear_what_a_replica_says_hears_no_more(world, recorder, caplog) -> None:
    replica = recorder(world.replica(), alpn=["h2"])
    service = world.service(replica.target)

    class Fails(asyncio.BufferedProtocol):
        room = bytearray(1 << 15)
        is_lost = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def get_buffer(self, _hint: int) -> bytearray:
            return self.room

        def buffer_updated(self, _count: int) -> None:
            raise ZeroDivisionError

        def connection_lost(self, _error: Exception | None) -> None:
            self.is_lost = True

    with Tunnel(lambda: service.attest(replica.target, "h2")) as tunnel:
        said = await open_through(tunnel, THREADS, Fails)
        said.transport.write(b"a")
        await until(lambda: said.is_lost)
        await until(lambda: replica.ended == 1)
        assert not tunnel.is_lost
    assert "nobody foresaw" in caplog.text


async def test_who_gives_up_leaves_no_connection_behind(world, recorder) -> None:
    replica, go_on, asked = recorder(world.replica()), threading.Event(), threading.Event()
    service = world.service(replica.target)
    first = [service.attest(replica.target, "h2")]

    def attest() -> AttestedSocket:
        if first:
            return first.pop()
        asked.set()
        go_on.wait(10)
        return service.attest(replica.target, "h2")

    backs = Backs()
    with Tunnel(attest) as tunnel:
        used = await open_through(tunnel, THREADS, backs.connection)
        opening = asyncio.ensure_future(open_through(tunnel, THREADS, backs.connection))
        await until(asked.is_set)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()
        await until(lambda: replica.accepted == 2)
        used.abort()
        await until(lambda: replica.ended == 2)
        assert not tunnel.is_lost  # nobody but us has ended anything
    await backs.stop(0)


async def test_why_there_is_no_connection_is_the_tunnels_to_tell(world, probe) -> None:
    service = world.service(probe().target)
    first = [service.attest(service.targets[0], "h2")]

    def attest() -> AttestedSocket:
        if first:
            return first.pop()
        raise UnreachableError("connect.tcp", "there is nobody")

    backs = Backs()
    with Tunnel(attest) as tunnel:
        connection = await open_through(tunnel, THREADS, backs.connection)
        with pytest.raises(ConnectionError):
            await open_through(tunnel, THREADS, backs.connection)
        assert tunnel.failure is not None
        assert tunnel.failure.check == "connect.tcp"
        assert not tunnel.is_lost  # there is another one
        connection.abort()
    await backs.stop(0)


async def test_what_speaks_fails_at_once(world, recorder) -> None:
    replica = recorder(world.replica(), alpn=["h2"])

    def make() -> None:
        raise ZeroDivisionError

    service = world.service(replica.target)
    with Tunnel(lambda: service.attest(replica.target, "h2")) as tunnel:
        with pytest.raises(ZeroDivisionError):
            await open_through(tunnel, THREADS, make)
        await until(lambda: replica.ended == 1)
        assert not tunnel.is_lost
