"""Attested connections whose bytes the event loop moves."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ensconce.client.attested import AttestedSocket
from ensconce.client.tunnel import Tunnel
from ensconce.errors import UnreachableError
from ensconce.proxy.back import Backs
from ensconce.proxy.transport import open_through

THREADS = ThreadPoolExecutor(4)


async def until(reached) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.005)


async def test_a_connection_ends_with_what_it_was_accepted_for(world, probe) -> None:
    service = world.service(probe().target)

    def attest() -> AttestedSocket:
        return replace(service.attest(service.targets[0], "h2"), deadline=time.monotonic() + 0.2)

    backs = Backs()
    with Tunnel(attest) as tunnel:
        connection = await open_through(tunnel, THREADS, backs.connection)
        await until(lambda: connection.has_room and connection.is_open)
        assert not tunnel.is_lost
        await until(lambda: connection.is_lost)
        assert tunnel.is_lost
    await backs.stop(0)


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
