"""The timer of an open loop, in real time: never early, and one after the other."""

from __future__ import annotations

import asyncio
import ctypes
from types import SimpleNamespace

import pytest

from ensconce.bench.alarm import precise_sleep


async def test_it_rings_after_what_was_asked_and_not_before() -> None:
    clock = asyncio.get_running_loop().time
    async with precise_sleep() as sleep:
        assert sleep is not asyncio.sleep
        for seconds in (0.0, 0.0004, 0.003):
            begin = clock()
            await asyncio.wait_for(sleep(seconds), 5)
            assert clock() - begin >= seconds


async def test_one_that_was_given_up_does_not_ring_in_the_next() -> None:
    clock = asyncio.get_running_loop().time
    async with precise_sleep() as sleep:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sleep(0.01), 0.001)
        begin = clock()
        await asyncio.wait_for(sleep(0.03), 5)
        assert clock() - begin >= 0.03


async def test_without_a_timer_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(timerfd_create=lambda *_: -1))
    async with precise_sleep() as sleep:
        assert sleep is asyncio.sleep
