"""Threads that compute, and a bound on how much may wait for them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ensconce.serving.answers import Scheduler
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["EachAlone", "Scheduler", "Workers"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Workers:
    """Runs jobs in threads; refuses early when too many wait, instead of answering everybody late."""

    def __init__(self, threads: int, admitted: int) -> None:
        """Make the pool.

        Args:
            threads: jobs that run at once.
            admitted: jobs that run or wait at once.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._admitted = admitted
        self._free = threading.BoundedSemaphore(admitted)

    async def run(self, job: Callable[[], _T]) -> _T:
        """The result of ``job``, run in a thread. A job whose caller is cancelled before it starts never starts.

        Raises:
            RequestError: UNAVAILABLE, too many jobs are waiting; INTERNAL, the job failed in a way that it should not;
                or what the job raised.
        """
        if not self._free.acquire(blocking=False):
            raise RequestError(Code.UNAVAILABLE, f"The server is busy: {self._admitted} requests are being served")
        try:
            future = self._pool.submit(job)
        except RuntimeError:
            self._free.release()
            raise RequestError(Code.UNAVAILABLE, "The server is stopping") from None
        future.add_done_callback(self._release)
        try:
            return await asyncio.wrap_future(future)
        except RequestError:
            raise
        except Exception as error:
            # Neither the text nor the values of an unforeseen error may leave: both can hold a client's data.
            _log.error("internal error: %s at %s", type(error).__name__, _place(error))
            raise RequestError(Code.INTERNAL, f"Internal error: {type(error).__name__}") from None

    def _release(self, _future: Future[_T]) -> None:
        self._free.release()

    def close(self) -> None:
        """Let running jobs end, drop waiting ones, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class EachAlone:
    """Computes each prediction by itself, in a pool's threads."""

    def __init__(self, workers: Workers) -> None:
        """Compute there."""
        self._workers = workers

    async def predict(
        self,
        loaded: LoadedServable,
        signature_name: str,
        inputs: Mapping[str, Array],
        output_filter: Sequence[str] = (),
    ) -> dict[str, Array]:
        """The outputs of one prediction.

        Raises:
            RequestError: as :meth:`Workers.run`.
        """
        return await self._workers.run(lambda: loaded.servable.predict(signature_name, inputs, output_filter))

    async def close(self) -> None:
        """Let what is being computed end."""
        # Joining threads blocks; the last inference may still run when its client's grace is over.
        await asyncio.to_thread(self._workers.close)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "an unknown place"
