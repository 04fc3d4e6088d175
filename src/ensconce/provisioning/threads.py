"""Threads for what would hold up the event loop: collateral, keystore, log.

Python's own pool waits at the end of the process for every thread, and one of these may be waiting for a PCCS that does
not answer. These do not keep the process: whatever they were doing is safe to lose at any moment, as after a crash.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A fixed number of threads, each begun when it is first needed.

    Args:
        count: how many, at most.
        name: of the threads, for debuggers.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun = 0
        self._idle = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in one of the threads. A call that was not begun when its caller gave up never is."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((future, lambda: function(*args, **kwargs)))
        with self._lock:
            more = self._begun < self._count and self._idle == 0
            self._begun += more
        if more:
            threading.Thread(target=self._work, name=f"{self._name} {self._begun}", daemon=True).start()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end once they have done what is waiting."""
        for _ in range(self._begun):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # whoever awaits it shall have it
                future.set_exception(error)
            else:
                future.set_result(result)
            # Until the next job comes, nothing here holds on to secrets.
            del job, future, call
            result = None
