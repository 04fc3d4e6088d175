"""Wakes an event loop when it is time: its own timers are as coarse as epoll_wait(2), which counts milliseconds.

A millisecond late is late for a model that answers in half of one, and would count as its latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

__all__ = ["precise_sleep"]

_NANO: Final = 10**9


class _Itimerspec(ctypes.Structure):
    # timerfd_create(2): it_interval and it_value, each seconds and nanoseconds.
    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


@contextlib.asynccontextmanager
async def precise_sleep() -> AsyncIterator[Callable[[float], Awaitable[None]]]:
    """A sleep for one task at a time, in seconds; ``asyncio.sleep`` where the kernel has no timer for us."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Python has os.timerfd_create from 3.13 on.
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if timer < 0:
        yield asyncio.sleep
        return
    loop, rung = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(timer, 8)
            rung.set()

    async def sleep(seconds: float) -> None:
        rung.clear()
        whole, rest = divmod(max(round(seconds * _NANO), 1), _NANO)
        spec = _Itimerspec((0, 0), (whole, rest))
        libc.timerfd_settime(timer, 0, ctypes.byref(spec), None)
        await rung.wait()

    loop.add_reader(timer, ring)
    try:
        yield sleep
    finally:
        loop.remove_reader(timer)
        os.close(timer)
