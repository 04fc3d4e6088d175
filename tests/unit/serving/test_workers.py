from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from ensconce.serving.workers import Workers
from ensconce.tfserving.refusal import Code, RequestError, invalid


async def test_results_and_refusals_come_back() -> None:
    workers = Workers(1, 1)
    assert await workers.run(lambda: 5) == 5

    def refuse() -> None:
        raise invalid("no")

    with pytest.raises(RequestError, match="no"):
        await workers.run(refuse)
    workers.close()


async def test_too_many_are_refused_at_once_and_places_come_free() -> None:
    workers, go = Workers(1, 2), threading.Event()
    waiting = [asyncio.create_task(workers.run(lambda: go.wait(20))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as caught:
        await workers.run(lambda: None)
    assert caught.value.code is Code.UNAVAILABLE
    go.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await workers.run(lambda: 1) == 1
    workers.close()


async def test_a_job_whose_caller_left_never_starts() -> None:
    workers, go, started = Workers(1, 3), threading.Event(), []
    first = asyncio.create_task(workers.run(lambda: go.wait(20)))
    second = asyncio.create_task(workers.run(lambda: started.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    await first
    assert await workers.run(lambda: 1) == 1
    assert not started
    workers.close()


async def test_unforeseen_errors_tell_neither_caller_nor_log_what_they_hold(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(1, 1)

    def fail() -> None:
        raise ValueError("pixels 1 2 3")

    with caplog.at_level(logging.DEBUG), pytest.raises(RequestError) as caught:
        await workers.run(fail)
    assert caught.value.code is Code.INTERNAL
    assert caught.value.problem == "Internal error: ValueError"
    assert "test_workers.py" in caplog.text
    assert "pixels" not in caplog.text
    workers.close()
    with pytest.raises(RequestError, match="stopping"):
        await workers.run(lambda: None)
