"""Between an event loop, where requests arrive and are answered, and the threads that compute them."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ensconce.serving.batching.compute import Computed, compute
from ensconce.serving.batching.pace import Paces
from ensconce.serving.batching.padding import join_outputs
from ensconce.serving.batching.parameters import Bounds, Parameters
from ensconce.serving.batching.plans import Plan, make_plan
from ensconce.serving.batching.queues import Queues, Terms
from ensconce.serving.batching.tasks import Outcome, Part, Request
from ensconce.serving.manager import LoadedServable
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import MAX_AXIS, Signature, find_signature
from ensconce.tfserving.tensor import Array

__all__ = ["BatchRecord", "Scheduler"]

_THREADS: Final = 2
_MERGED_BYTES: Final = 16 * 1024 * 1024
_STOPPING: Final = "The server is stopping"


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was computed, for whoever counts.

    Attributes:
        model: whose it was.
        version: of the model.
        signature: of the version.
        requests: how many were in it, wholly or in part.
        rows: that were computed at once, padding among them.
        padding: rows that nobody asked for.
        waited: seconds that each request waited before.
        seconds: that the computation took.
    """

    model: str
    version: int
    signature: str
    requests: int
    rows: int
    padding: int
    waited: tuple[float, ...]
    seconds: float


class Scheduler:
    """Computes predictions, merging what waits for the same, in threads of its own; what is over at once in the loop.

    Everything but the threads belongs to one event loop, the one in which the scheduler is made.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        *,
        merge: bool = True,
        bounds: Bounds | None = None,
        observe: Callable[[BatchRecord], None] | None = None,
        threads: int = _THREADS,
    ) -> None:
        """Start the threads; to be called in the event loop.

        Args:
            parameters: rule how requests are merged, as in TensorFlow Serving with ``--enable_batching``. Without
                them nothing is delayed, and what waits for the engine is merged as far as that pays.
            merge: whether requests are merged at all when no parameters are given.
            bounds: how much may be here at once.
            observe: told of each batch, in the event loop.
            threads: that compute when no parameters say how many.
        """
        self._loop = asyncio.get_running_loop()
        self._parameters, self._merge, self._observe = parameters, merge, observe
        self._lock = threading.Lock()
        self._paces = Paces(trusting=parameters is not None)
        self._queues = Queues(
            bounds or Bounds(),
            self._terms,
            running_per_model=max(1, threads - 1) if merge and parameters is None else None,
        )
        self._stopping = False
        # How to wake each idle thread; the one that fell asleep last is woken first, its caches are warm.
        self._idle: list[queue.SimpleQueue[None]] = []
        self._answers: list[tuple[Request, RequestError | None]] = []
        self._records: list[BatchRecord] = []
        self._told = False
        self._called = False
        self._timer: asyncio.TimerHandle | None = None
        count = parameters.num_batch_threads if parameters is not None else threads
        self._running = count
        self._ended = self._loop.create_future()
        self._threads = [threading.Thread(target=self._work, name=f"inference_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def requests(self) -> int:
        """Requests that wait or are being computed."""
        return self._queues.requests

    @property
    def input_bytes(self) -> int:
        """Bytes of their inputs."""
        return self._queues.bytes

    async def predict(
        self,
        loaded: LoadedServable,
        signature_name: str,
        inputs: Mapping[str, Array],
        output_filter: Sequence[str] = (),
    ) -> dict[str, Array]:
        """Compute outputs, those that ``output_filter`` names or all; a cancelled call that waits is never computed.

        Args:
            loaded: whose.
            signature_name: which signature; the empty name means ``serving_default``.
            inputs: exactly the signature's; they must stay as they are until this returns.
            output_filter: names of outputs.

        Returns:
            arrays that may be views of larger ones, of which other rows are other clients'.

        Raises:
            RequestError: as :meth:`plan` and :meth:`begin`; whatever is wrong with the request alone; UNAVAILABLE, the
                scheduler has been closed; INTERNAL, the model failed in a way that it should not.
        """
        signature = find_signature(loaded.servable.signatures, signature_name)
        signature.check_names(inputs)
        inputs = signature.complete(inputs)
        future: asyncio.Future[dict[str, Array]] = self._loop.create_future()

        def tell(outcome: Outcome) -> None:
            if future.done():
                return
            if isinstance(outcome, RequestError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        request = self.begin(loaded, self.plan(loaded, signature, inputs, output_filter), inputs, tell)
        try:
            return await future
        finally:
            if not future.done() or future.cancelled():
                self.leave(request)

    def plan(
        self,
        loaded: LoadedServable,
        signature: Signature,
        inputs: Mapping[str, Array],
        output_filter: Sequence[str] = (),
    ) -> Plan:
        """How these inputs are computed, and all others of the same types and shapes, as long as the plan holds.

        Arguments and errors are those of :func:`make_plan`.
        """
        pace = self._paces.of(loaded.servable, signature)
        return make_plan(pace, signature, inputs, output_filter, self._parameters, merge=self._merge)

    def begin(
        self, loaded: LoadedServable, plan: Plan, inputs: Mapping[str, Array], tell: Callable[[Outcome], object]
    ) -> Request:
        """Let a request wait for its turn; in the event loop.

        Args:
            loaded: whose.
            plan: made by :meth:`plan` for this servable, and inputs of the same types and shapes.
            inputs: must stay as they are until the outcome is told.
            tell: see :class:`Request`.

        Raises:
            RequestError: UNAVAILABLE, too many wait, or the scheduler is closed; RESOURCE_EXHAUSTED, inputs take too
                much memory; INVALID_ARGUMENT, there are more rows than may be.
        """
        now = self._loop.time()
        request = Request(loaded, plan, inputs, now, tell)
        with self._lock:
            if self._stopping:
                raise RequestError(Code.UNAVAILABLE, _STOPPING)
            self._queues.add(request, now)
            wake = self._wake_one(now)
            self._call_here(now)
        if wake is not None:
            wake.put(None)
        if self._parameters is not None:
            self._arm(now)
        return request

    def leave(self, request: Request) -> None:
        """Nobody wants to be told of this request any more: if it waits, it is not computed."""
        with self._lock:
            self._queues.leave(request)

    async def close(self) -> None:
        """Let what is being computed end and be answered, refuse what waits, and end the threads."""
        with self._lock:
            waiting = [] if self._stopping else self._queues.clear()
            self._stopping = True
            idle, self._idle = self._idle, []
        for wake in idle:
            wake.put(None)
        if self._timer is not None:
            self._timer.cancel()
        for request in waiting:
            with suppress(Exception):
                request.tell(RequestError(Code.UNAVAILABLE, _STOPPING))
        await asyncio.shield(self._ended)
        for thread in self._threads:
            # It has said that it ends, as its last word.
            thread.join()

    def _terms(self, request: Request) -> Terms:
        parameters = self._parameters
        if parameters is not None:
            rows = min(parameters.execution_size, MAX_AXIS)
            return Terms(
                lambda: rows,
                parameters.max_batch_size,
                parameters.batch_timeout_micros / 1e6,
                parameters.max_enqueued_batches,
                parameters.enable_large_batch_splitting,
                None,
            )
        pace = request.plan.pace
        return Terms(lambda: pace.limit, None, 0.0, None, False, _MERGED_BYTES)

    def _arm(self, now: float) -> None:
        """Come back when the next batch has waited long enough."""
        with self._lock:
            due = self._queues.due(now)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring) if due is not None else None

    def _ring(self) -> None:
        now = self._loop.time()
        with self._lock:
            wake = self._wake_one(now)
        if wake is not None:
            wake.put(None)
        self._arm(now)

    def _wake_one(self, now: float) -> queue.SimpleQueue[None] | None:
        """The idle thread to wake, if a batch for it is ready; to be called with the lock."""
        return self._idle.pop() if self._idle and self._queues.ready(now, quick=False) else None

    def _call_here(self, now: float) -> None:
        """In the event loop: have a batch computed there, if one that is over at once is ready; with the lock."""
        if not self._called and self._queues.ready(now, quick=True):
            self._called = True
            # Not now: what else has arrived in this turn of the loop is merged with it.
            self._loop.call_soon(self._compute_here)

    def _compute_here(self) -> None:
        """In the event loop: compute a batch in less time than it takes to wake a thread."""
        with self._lock:
            self._called = False
            batch = self._queues.take(started := self._loop.time(), quick=True)
        if batch is not None:
            parts, request = list(batch.parts), batch.request
            computed = compute(parts, None, started)
            request.plan.pace.occupied(request.plan.shape, batch.rows, computed.seconds)
            with self._lock:
                self._settle(parts, computed)
        self._deliver()

    def _work(self) -> None:
        """A thread's life: take a batch, compute it, say so; sleep when there is none."""
        alarm: queue.SimpleQueue[None] = queue.SimpleQueue()
        parts: list[Part] = []
        computed: Computed | None = None
        while True:
            with self._lock:
                if computed is not None:
                    self._settle(parts, computed)
                    computed, parts = None, []
                started = self._loop.time()
                batch = self._queues.take(started, quick=False)
                end = batch is None and self._stopping
                wake = None
                if batch is not None:
                    wake = self._wake_one(started)
                    parts = list(batch.parts)
                elif not end:
                    self._idle.append(alarm)
                # The loop is woken once, however many threads have answers, and after the next batch is taken.
                tell = not self._told and bool(
                    self._answers or self._records or self._queues.ready(started, quick=True)
                )
                self._told |= tell
            if tell:
                self._loop.call_soon_threadsafe(self._deliver)
            if wake is not None:
                wake.put(None)
            if batch is not None:
                computed = compute(parts, self._parameters, started)
            elif end:
                break
            else:
                alarm.get()
        with self._lock:
            self._running -= 1
            last = not self._running
        if last:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._deliver()
        self._ended.set_result(None)

    def _settle(self, parts: list[Part], computed: Computed) -> None:
        """Answer what has been computed."""
        first = parts[0].request
        outcomes = computed.outcomes
        if outcomes is None and not self._stopping:
            # One of them may be to blame: each has its turn again, by itself.
            now = self._loop.time()
            for part in parts:
                if part.request.gone:
                    self._queues.settle(part)
                else:
                    self._queues.again(part, now)
        elif outcomes is None:
            for part in parts:
                self._queues.settle(part)
                self._refuse(part.request, RequestError(Code.UNAVAILABLE, _STOPPING))
        else:
            for part, outcome in zip(parts, outcomes, strict=True):
                self._answer(part, outcome)
        self._queues.done(first.loaded.name)
        if self._observe is not None:
            self._records.append(
                BatchRecord(
                    first.loaded.name,
                    first.loaded.version,
                    first.plan.signature,
                    len(parts),
                    computed.rows,
                    computed.padding,
                    tuple(computed.started - part.request.arrived for part in parts),
                    computed.seconds,
                )
            )

    def _answer(self, part: Part, outcome: Outcome) -> None:
        request = part.request
        last = self._queues.settle(part)
        if isinstance(outcome, RequestError):
            self._refuse(request, outcome)
        else:
            request.results[part.start] = outcome
            if last and not request.gone:
                self._answers.append((request, None))

    def _refuse(self, request: Request, error: RequestError) -> None:
        """Tell the caller, unless it is gone; what of the request waits in other batches is not computed."""
        if not request.gone:
            self._answers.append((request, error))
            self._queues.leave(request)

    def _deliver(self) -> None:
        """In the event loop: tell callers."""
        with self._lock:
            answers, self._answers = self._answers, []
            records, self._records = self._records, []
            self._told = False
            now = self._loop.time()
            self._call_here(now)
            wake = self._wake_one(now)
        if wake is not None:
            wake.put(None)
        for request, error in answers:
            # Whatever one of them meets, the answers behind it are not lost with it.
            try:
                outcome: Outcome = error or join_outputs([request.results[at] for at in sorted(request.results)])
            except Exception as unexpected:
                outcome = RequestError(Code.INTERNAL, unforeseen(unexpected))
            with suppress(Exception):
                request.tell(outcome)
        if self._observe is not None:
            for record in records:
                self._observe(record)
