from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from ensconce.errors import InputError
from ensconce.provisioning.recorder import Event, Recorder


class Log:
    """An audit log that takes batches when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def append_many(self, events: Any) -> None:
        assert self.gate.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        self.batches.append([name for name, _ in events])


async def turn(recorder: Recorder, log: Log, *names: str) -> list[asyncio.Task[None]]:
    """Record these; they are part of a batch, or wait for the next one, afterwards."""
    tasks = [asyncio.create_task(recorder.record(Event(f"{name}.a", {}), Event(f"{name}.b", {}))) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_batch_is_the_next_batch_and_nobody_is_early() -> None:
    log = Log()
    recorder = Recorder(log)  # type: ignore[arg-type]
    first = await turn(recorder, log, "one")
    rest = await turn(recorder, log, "two", "three")
    assert not any(task.done() for task in first + rest)
    log.gate.release()
    await asyncio.wait_for(first[0], 30)
    assert not any(task.done() for task in rest)
    log.gate.release()
    await asyncio.wait_for(asyncio.gather(*rest), 30)
    assert log.batches == [["one.a", "one.b"], ["two.a", "two.b", "three.a", "three.b"]]
    recorder.close()


async def test_a_failure_is_everybodys_in_the_batch_and_nobodys_after_it() -> None:
    log = Log()
    recorder = Recorder(log)  # type: ignore[arg-type]
    log.error = InputError("audit.write", "the disk is full")
    tasks = await turn(recorder, log, "one")
    tasks += await turn(recorder, log, "two", "three")
    log.gate.release(2)
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(failure, "check", None) for failure in failures] == ["audit.write"] * 3
    assert failures[1] is not failures[2]
    log.error = None
    log.gate.release()
    await asyncio.wait_for(recorder.record(Event("four", {})), 30)
    log.error = KeyError("something")
    log.gate.release()
    with pytest.raises(RuntimeError) as caught:
        await recorder.record(Event("five", {}))
    assert "something" not in str(caught.value)


async def test_who_gives_up_does_not_take_it_back() -> None:
    log = Log()
    recorder = Recorder(log)  # type: ignore[arg-type]
    [task] = await turn(recorder, log, "one")
    task.cancel()
    log.gate.release(2)
    await asyncio.wait_for(recorder.record(Event("two", {})), 30)
    assert log.batches == [["one.a", "one.b"], ["two"]]


async def test_what_is_recorded_is_told_and_what_is_not_is_not(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    recorder = Recorder(log)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        log.gate.release(2)
        await recorder.record(Event("key.released", {"peer": "x"}))
        log.error = InputError("audit.write", "full")
        with pytest.raises(InputError):
            await recorder.record(Event("key.released", {"peer": "y"}))
    assert [record.__dict__["fields"] for record in caplog.records if record.message == "key.released"] == [
        {"peer": "x"}
    ]
