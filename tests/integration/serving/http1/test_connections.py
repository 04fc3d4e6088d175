from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
Start = Callable[..., Coroutine[Any, Any, Any]]


async def test_nothing_is_computed_for_who_is_gone(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/never") + b"\r\n")
    await world.echo.entered.wait()
    peer.writer.close()
    await asyncio.wait_for(world.echo.cancelled.wait(), 30)


async def test_there_are_not_too_many_connections(start: Start) -> None:
    world = await start(connections=2)
    peers = [await world.connect() for _ in range(2)]
    for peer in peers:
        peer.send(HEAD + b"\r\n")
        assert (await peer.answer())[0] == 200
    # Nobody is asking anything: the one that has been silent for longest makes room.
    third = await world.connect()
    third.send(HEAD + b"\r\n")
    assert (await third.answer())[0] == 200
    assert await peers[0].end() == b""
    peers[1].send(HEAD + b"\r\n")
    assert (await peers[1].answer())[0] == 200
    assert world.server.connections == 2


async def test_connections_that_are_busy_are_not_closed_for_others(start: Start) -> None:
    world = await start(connections=1)
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/later") + b"\r\n")
    await world.echo.entered.wait()
    assert await (await world.connect()).end() == b""
    world.echo.go_on.set()
    assert (await peer.answer())[0] == 200


async def test_connections_age(start: Start) -> None:
    peer = await (await start(age=0.0)).connect()
    peer.send(HEAD + b"\r\n")
    assert (await peer.answer())[1]["connection"] == "close"
    assert await peer.end() == b""


async def test_stopping_answers_what_was_asked(start: Start) -> None:
    world = await start()
    busy, idle = await world.connect(), await world.connect()
    busy.send(HEAD.replace(b"/a", b"/later") + b"\r\n")
    await world.echo.entered.wait()
    stopping = asyncio.create_task(world.server.stop(30))
    assert await idle.end() == b""
    world.echo.go_on.set()
    status, fields, _ = await busy.answer()
    assert (status, fields["connection"]) == (200, "close")
    await stopping
    with pytest.raises(OSError):
        await world.connect()


async def test_stopping_does_not_wait_for_ever(start: Start) -> None:
    world = await start()
    peer = await world.connect()
    peer.send(HEAD.replace(b"/a", b"/never") + b"\r\n")
    await world.echo.entered.wait()
    await asyncio.wait_for(world.server.stop(0.1), 30)
    assert await peer.end() == b""
    assert world.echo.cancelled.is_set()
