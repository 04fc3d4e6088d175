"""Group commit: whoever comes while a batch is being made durable shares the next one.

The first thread leads: it takes all that wait, has them committed as one batch, and wakes their threads. Alone, a
thread leads its own batch of one and waits for nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ensconce.errors import EnsconceError

__all__ = ["GroupCommit"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    weight: int
    settled: bool = False
    result: Result | None = None
    error: BaseException | None = None


class GroupCommit(Generic[Item, Result]):
    """Gathers what threads submit into batches.

    Args:
        commit: makes a batch durable, whole; returns one result for each item, in order.
        most: items in a batch.
        heaviest: sum of their weights; an item that is heavier has a batch of its own.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result]], *, most: int, heaviest: int) -> None:
        self._commit = commit
        self._most = most
        self._heaviest = heaviest
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._turn = threading.Condition()
        self._led = False

    def submit(self, items: Sequence[tuple[Item, int]]) -> list[Result]:
        """Have items, each with its weight, committed in this order; others may come between them.

        Raises:
            Exception: what ``commit`` raised for the first of them that failed; those before it are committed.
        """
        waiting = [_Waiting[Item, Result](item, weight) for item, weight in items]
        with self._turn:
            self._queue.extend(waiting)
        for each in waiting:
            self._settle(each)
        return [self._result(each) for each in waiting]

    def _settle(self, waiting: _Waiting[Item, Result]) -> None:
        while True:
            with self._turn:
                while self._led and not waiting.settled:
                    self._turn.wait()
                if waiting.settled:
                    return
                self._led = True
                batch = self._take()
            try:
                self._lead(batch)
            finally:
                with self._turn:
                    self._led = False
                    for each in batch:
                        each.settled = True
                    self._turn.notify_all()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch, weight = [self._queue.popleft()], 0
        weight = batch[0].weight
        while self._queue and len(batch) < self._most and weight + self._queue[0].weight <= self._heaviest:
            batch.append(self._queue.popleft())
            weight += batch[-1].weight
        return batch

    def _lead(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            for each, result in zip(batch, self._commit([each.item for each in batch]), strict=True):
                each.result = result
        except BaseException as error:
            for each in batch:
                each.error = error
            if not isinstance(error, Exception):
                raise  # an interrupt is for the thread that it came to; the others learn that nothing was acknowledged

    @staticmethod
    def _result(waiting: _Waiting[Item, Result]) -> Result:
        error = waiting.error
        if isinstance(error, EnsconceError):
            raise error.altered() from error  # each thread an exception of its own
        if error is not None:
            raise RuntimeError("the batch was not committed") from error
        return waiting.result  # type: ignore[return-value]  # a settled item without an error has one
