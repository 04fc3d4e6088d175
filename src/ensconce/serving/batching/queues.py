"""What waits: requests in batches, batches in queues, queues in lanes, and whose turn it is.

A queue holds what may be merged as far as names go: one servable, one signature, one choice of outputs. Within it a
batch holds requests whose shapes fit too. A lane holds the queues of one model. Lanes take turns, and within a lane its
queues do, a batch each; so a model waits for at most one batch of every other, however much these are asked.

Nothing here knows threads or clocks: whoever calls holds a lock, and says what time it is. Facts about sizes and
refusals are TensorFlow's (``core/kernels/batching_util/shared_batch_scheduler.h``, class ``Queue``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ensconce.serving.batching.parameters import Bounds
from ensconce.serving.batching.tasks import Part, Request
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["Batch", "Queues", "Terms"]

_FULL: Final = "The batch scheduling queue to which this task was submitted is full"


@dataclass(frozen=True)
class Terms:
    """How a queue forms batches.

    Attributes:
        rows: most rows of a batch, asked whenever one is begun or filled.
        request_rows: most rows of a request; None: a larger one than a batch may have is a batch by itself.
        timeout: seconds that the first request of a batch waits for others.
        batches: most batches that may wait.
        splits: whether requests are cut to fill batches.
        bytes: most bytes of a batch's inputs, unless one request alone has more.
    """

    rows: Callable[[], int]
    request_rows: int | None
    timeout: float
    batches: int | None
    splits: bool
    bytes: int | None


@dataclass(eq=False, slots=True)
class Batch:
    """What is computed together."""

    queue: _Queue
    mates: Hashable | None
    opened: float
    parts: dict[Part, None] = field(default_factory=dict)
    rows: int = 0
    nbytes: int = 0
    closed: bool = False

    @property
    def request(self) -> Request:
        """Any of the requests in it; they ask the same of the same."""
        return next(iter(self.parts)).request

    @property
    def is_quick(self) -> bool:
        """Whether it is known to be computed in less time than it takes to wake a thread."""
        request = self.request
        return request.plan.shape is not None and request.plan.pace.is_quick(
            request.plan.shape, self.rows, len(self.parts)
        )


@dataclass(eq=False, slots=True)
class _Queue:
    terms: Terms
    # An ordered set.
    batches: dict[Batch, None] = field(default_factory=dict)
    open: dict[Hashable, Batch] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Lane:
    queues: dict[Hashable, _Queue] = field(default_factory=dict)
    running: int = 0
    requests: int = 0
    bytes: int = 0


class Queues:
    """Everything that waits, and the count of what is being computed."""

    def __init__(self, bounds: Bounds, terms: Callable[[Request], Terms], *, running_per_model: int | None) -> None:
        """Begin empty.

        Args:
            bounds: what may be here at once.
            terms: for the queue that begins with this request.
            running_per_model: batches of one model that are computed at once; any number when None.
        """
        self._bounds = bounds
        self._terms = terms
        self._running_per_model = running_per_model
        self._lanes: dict[str, _Lane] = {}
        self.requests = 0
        self.bytes = 0

    def add(self, request: Request, now: float) -> None:
        """Let a request wait for its turn.

        Raises:
            RequestError: UNAVAILABLE, too many wait; RESOURCE_EXHAUSTED, their inputs are too large;
                INVALID_ARGUMENT, the request has more rows than any may have.
        """
        lane = self._lanes.get(request.loaded.name) or _Lane()
        self._check_bounds(request, lane)
        key = (id(request.loaded.servable), request.plan.signature, request.plan.outputs)
        queue = lane.queues.get(key) or _Queue(self._terms(request))
        _check_queue(queue, request)
        self._lanes[request.loaded.name] = lane
        lane.queues[key] = queue
        for part in _parts(queue, request):
            request.parts.add(part)
            _place(queue, part, now)
        self.requests += 1
        self.bytes += request.plan.nbytes
        lane.requests += 1
        lane.bytes += request.plan.nbytes

    def _check_bounds(self, request: Request, lane: _Lane) -> None:
        bounds = self._bounds
        if self.requests >= bounds.requests or lane.requests >= bounds.requests_per_model:
            raise RequestError(
                Code.UNAVAILABLE,
                f"{_FULL}; currently {self.requests} requests are being served, {lane.requests} of them by model "
                f"{request.loaded.name}, and at most {bounds.requests} and {bounds.requests_per_model} are",
            )
        if self.bytes + request.plan.nbytes > bounds.bytes:
            raise _too_many_bytes(request.plan.nbytes, self.bytes, bounds.bytes)
        if lane.bytes + request.plan.nbytes > bounds.bytes_per_model:
            raise _too_many_bytes(request.plan.nbytes, lane.bytes, bounds.bytes_per_model)

    def take(self, now: float, *, quick: bool) -> Batch | None:
        """The batch whose turn it is of those that are quick, or are not, if one is ready; it counts as running until
        :meth:`done`."""
        for name, lane, key, queue, batch in self._ready(now, quick):
            del queue.batches[batch]
            _close(batch)
            lane.running += 1
            # Whoever was served goes to the end, the queue and its model.
            del lane.queues[key]
            if queue.batches:
                lane.queues[key] = queue
            del self._lanes[name]
            self._lanes[name] = lane
            for part in batch.parts:
                part.batch = None
            return batch
        return None

    def ready(self, now: float, *, quick: bool) -> bool:
        """Whether :meth:`take` would find one."""
        return next(self._ready(now, quick), None) is not None

    def _ready(self, now: float, quick: bool) -> Iterator[tuple[str, _Lane, Hashable, _Queue, Batch]]:
        """Of each model the batch whose turn it is, if it is quick, or is not; what comes behind it waits all the same.

        What is quick also waits for other batches of its model: they may hold what it computes with, and the event loop
        would wait for that.
        """
        for name, lane in self._lanes.items():
            if quick and lane.running:
                continue
            if self._running_per_model is not None and lane.running >= self._running_per_model:
                continue
            found = next(
                (
                    (key, queue, batch)
                    for key, queue in lane.queues.items()
                    for batch in queue.batches
                    if batch.closed or now >= batch.opened + queue.terms.timeout
                ),
                None,
            )
            if found is not None and found[2].is_quick is quick:
                yield name, lane, *found

    def due(self, now: float) -> float | None:
        """When the next batch that is not ready yet will have waited long enough."""
        times = (
            batch.opened + queue.terms.timeout
            for lane in self._lanes.values()
            for queue in lane.queues.values()
            for batch in queue.open.values()
        )
        return min((time for time in times if time > now), default=None)

    def done(self, name: str) -> None:
        """A batch of this model is no longer running."""
        lane = self._lanes[name]
        lane.running -= 1
        self._forget_if_empty(name, lane)

    def settle(self, part: Part) -> bool:
        """A part needs no more computing; whether it was the request's last one, which then is counted no longer."""
        request = part.request
        request.parts.discard(part)
        if request.parts:
            return False
        lane = self._lanes[request.loaded.name]
        lane.requests -= 1
        lane.bytes -= request.plan.nbytes
        self.requests -= 1
        self.bytes -= request.plan.nbytes
        self._forget_if_empty(request.loaded.name, lane)
        return True

    def leave(self, request: Request) -> None:
        """Nobody waits for this request any more: what has not begun will not."""
        request.gone = True
        lane = self._lanes.get(request.loaded.name)
        if lane is None:
            return
        for part in [part for part in request.parts if part.batch is not None]:
            batch = part.batch
            assert batch is not None
            del batch.parts[part]
            part.batch = None
            batch.rows -= part.rows
            batch.nbytes -= part.nbytes
            if not batch.parts:
                self._drop(lane, batch)
            self.settle(part)

    def again(self, part: Part, now: float) -> None:
        """Let a part that is running, and not done, wait once more, by itself."""
        request = part.request
        lane = self._lanes[request.loaded.name]
        key = (id(request.loaded.servable), request.plan.signature, request.plan.outputs)
        queue = lane.queues.setdefault(key, _Queue(self._terms(request)))
        _begin(queue, None, now, part)

    def clear(self) -> list[Request]:
        """Empty all queues, and hand back what waited in them."""
        waiting = {
            part.request: None
            for lane in self._lanes.values()
            for queue in lane.queues.values()
            for batch in queue.batches
            for part in batch.parts
        }
        for request in waiting:
            self.leave(request)
        return list(waiting)

    def _drop(self, lane: _Lane, batch: Batch) -> None:
        queue = batch.queue
        _close(batch)
        del queue.batches[batch]
        if not queue.batches:
            for key in [key for key, each in lane.queues.items() if each is queue]:
                del lane.queues[key]

    def _forget_if_empty(self, name: str, lane: _Lane) -> None:
        # A lane that stayed would keep the names of models that are gone, a queue the models themselves.
        if not lane.running and not lane.requests:
            del self._lanes[name]


def _check_queue(queue: _Queue, request: Request) -> None:
    """Whether there is room; ``ValidateBatchTaskQueueCapacity`` and ``SchedulingCapacityInternal``."""
    terms = queue.terms
    if terms.request_rows is not None and request.plan.rows > terms.request_rows:
        raise invalid(f"Task size {request.plan.rows} is larger than maximum input batch size {terms.request_rows}")
    if terms.batches is None:
        return
    here, most = len(queue.batches), terms.rows()
    tail = _open_for(queue, request)
    if terms.splits and request.plan.mates is not None:
        capacity = (terms.batches - here) * most + (most - tail.rows if tail is not None else 0)
        if request.plan.rows > capacity:
            raise RequestError(
                Code.UNAVAILABLE,
                f"{_FULL}; task size is {request.plan.rows} but scheduling capacity is only {capacity} "
                f"(num_enqueued_batches={here}, max_enqueued_batches={terms.batches}, "
                f"open_batch_size={tail.rows if tail is not None else 0}, max_execution_batch_size={most})",
            )
    elif (tail is None or tail.rows + request.plan.rows > most) and here >= terms.batches:
        raise RequestError(
            Code.UNAVAILABLE, f"{_FULL}; currently {here} batches enqueued and max_enqueued_batches is {terms.batches}"
        )


def _open_for(queue: _Queue, request: Request) -> Batch | None:
    return queue.open.get(request.plan.mates) if request.plan.mates is not None else None


def _parts(queue: _Queue, request: Request) -> Iterator[Part]:
    """The request in pieces that fit: the first fills the open batch, the others take a batch each."""
    most = queue.terms.rows()
    if not queue.terms.splits or request.plan.mates is None:
        yield Part(request, 0, request.plan.rows)
        return
    tail, at = _open_for(queue, request), 0
    room = most - tail.rows if tail is not None else most
    while at < request.plan.rows:
        stop = min(at + (room or most), request.plan.rows)
        yield Part(request, at, stop)
        at, room = stop, most


def _place(queue: _Queue, part: Part, now: float) -> None:
    """Into the open batch if it fits, otherwise into a new one."""
    mates, terms, most = part.request.plan.mates, queue.terms, queue.terms.rows()
    batch = _open_for(queue, part.request)
    if batch is not None and (
        batch.rows + part.rows > most or (terms.bytes is not None and batch.nbytes + part.nbytes > terms.bytes)
    ):
        _close(batch)
        batch = None
    if batch is None:
        batch = _begin(queue, mates, now, part)
    else:
        _join(batch, part)
    if batch.rows >= most:
        _close(batch)


def _begin(queue: _Queue, mates: Hashable | None, now: float, part: Part) -> Batch:
    batch = Batch(queue, mates, now)
    queue.batches[batch] = None
    if mates is None:
        batch.closed = True
    else:
        queue.open[mates] = batch
    _join(batch, part)
    return batch


def _join(batch: Batch, part: Part) -> None:
    batch.parts[part] = None
    batch.rows += part.rows
    batch.nbytes += part.nbytes
    part.batch = batch


def _close(batch: Batch) -> None:
    batch.closed = True
    if batch.mates is not None and batch.queue.open.get(batch.mates) is batch:
        del batch.queue.open[batch.mates]


def _too_many_bytes(nbytes: int, here: int, most: int) -> RequestError:
    return RequestError(
        Code.RESOURCE_EXHAUSTED,
        f"The inputs of this request take {nbytes} bytes, those being served {here}, and at most {most} are kept",
    )
