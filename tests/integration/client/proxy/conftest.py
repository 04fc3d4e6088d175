"""Proxies that run in a thread of the test, in front of the replicas of the world."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ensconce.addresses import Address
from ensconce.proxy.program import Proxy, Running, Side

FREE = Address("127.0.0.1", 0)


class Started:
    """A proxy that runs; ``at`` says where each of its listeners is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self._loop = loop
        self.at: dict[str, str] = {}
        asyncio.run_coroutine_threadsafe(self._start(proxy), loop).result(10)

    async def _start(self, proxy: Proxy) -> None:
        self.running = Running(proxy)
        await self.running.start(self.at.__setitem__)

    def stop(self, grace: float = 0) -> None:
        asyncio.run_coroutine_threadsafe(self.running.stop(grace), self._loop).result(10)


@pytest.fixture
def proxy(world) -> Iterator[Callable[..., Started]]:
    """Starts proxies to gRPC at some addresses, and REST at others."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Started] = []

    def make(*targets: Address, rest: Address | None = None, place: Any = FREE, **options: Any) -> Started:
        sides = {
            "grpc": Side(place, world.service(*targets, **options)) if targets else None,
            "rest": Side(FREE, world.service(rest, **options)) if rest else None,
        }
        made.append(Started(loop, Proxy(status=FREE, **sides)))
        return made[-1]

    yield make
    for each in made:
        each.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
