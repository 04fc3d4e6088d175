from __future__ import annotations

import asyncio
import threading

import pytest

from ensconce.provisioning.threads import Threads


async def test_calls_run_in_at_most_so_many_threads() -> None:
    threads = Threads(3, "test")
    together = threading.Barrier(3)

    def call(number: int) -> tuple[int, str]:
        together.wait(30)  # breaks unless three run at once
        return number, threading.current_thread().name

    results = await asyncio.gather(*(threads.run(call, number) for number in range(9)))
    assert [number for number, _ in results] == list(range(9))
    assert len({name for _, name in results}) == 3
    threads.close()


async def test_failures_come_to_whoever_called() -> None:
    threads = Threads(1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0)
    assert await threads.run(lambda: 5) == 5


async def test_what_was_given_up_before_it_began_never_begins() -> None:
    threads = Threads(1, "test")
    gate, called = threading.Event(), []
    busy = asyncio.create_task(threads.run(gate.wait, 30))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(threads.run(called.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting  # by then the thread's side of it is cancelled too
    gate.set()
    assert await busy
    assert await threads.run(lambda: 7) == 7
    assert called == []


async def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    threads = Threads(1, "test hanging")
    hanging = asyncio.create_task(threads.run(threading.Event().wait, 60))
    while not any(thread.name.startswith("test hanging") for thread in threading.enumerate()):
        await asyncio.sleep(0.001)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("test hanging"))
    hanging.cancel()
