"""Unary calls that change nothing in a server: made again where that helps, and elsewhere where one takes too long."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from ensconce.client.channel import AttestedChannel, MultiCallable, true_reason
from ensconce.client.hedge import Hedge, Latencies, check_hedge
from ensconce.client.pool import Lease
from ensconce.client.retry import ATTEMPTS, Budget, may_retry, pause
from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["TIMEOUT_S", "Caller", "Conduct", "as_ours"]

TIMEOUT_S: Final = 60.0
"""For a call and all that is done to have it answered, unless it is told otherwise."""


@dataclass(kw_only=True)
class Conduct:
    """What all calls of a client have in common.

    Attributes:
        hedge: after how long a call is also made to another replica; ``None`` for never.
        budget: for calls beyond those that were asked for.
        clock: in seconds; never goes back.
        chance: a number from 0 to 1.
        latencies: how long calls took, by what they asked for.
        answered: calls that each replica answered, by its id.
    """

    hedge: Hedge | None = None
    budget: Budget = field(default_factory=Budget)
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    latencies: defaultdict[str, Latencies] = field(default_factory=lambda: defaultdict(Latencies))
    answered: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        check_hedge(self.hedge)

    def delay(self, kind: str) -> float | None:
        """Seconds until a call of this kind is also made elsewhere; ``None`` for never, or not yet known."""
        if not kind:
            return None
        return self.latencies[kind].p95() if self.hedge == "p95" else self.hedge

    def done(self, kind: str, began: float, replica_id: str) -> None:
        """A call was answered."""
        if not kind:
            return
        with self._lock:
            self.latencies[kind].add(self.clock() - began)
            self.answered[replica_id] += 1

    def answers(self) -> dict[str, int]:
        """How many calls each replica has answered, by its id."""
        with self._lock:
            return dict(self.answered)

    def wait(self, attempt: int, error: Any, reason: EnsconceError | None, deadline: float, *, others: bool) -> float:
        """Seconds until the next attempt.

        Args:
            attempt: how many there were.
            error: of the latest, a ``grpc.RpcError``.
            reason: the true one, if any.
            deadline: of the whole call, by the clock.
            others: whether there is an accepted replica.

        Raises:
            EnsconceError: there is no next.
        """
        if may_retry(error.code(), reason, others=others) and attempt < ATTEMPTS:
            seconds = pause(attempt, self.chance())
            if self.clock() + seconds < deadline and self.budget.take():
                return seconds
        raise reason or as_ours(error) from error


class Caller:
    """Makes calls over a channel. Safe to share between threads.

    Args:
        channel: with a pool.
        conduct: how.
        sleep: lets seconds pass.
    """

    def __init__(
        self, channel: AttestedChannel, conduct: Conduct, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._pool = channel.pool
        self._conduct, self._sleep = conduct, sleep
        self._methods: dict[str, MultiCallable] = {}

    def call(self, path: str, request: bytes, *, kind: str, timeout: float) -> bytes:
        """One call.

        Args:
            path: the method's, such as ``/tensorflow.serving.PredictionService/Predict``.
            request: serialized.
            kind: calls of one kind take about as long: the model's name. Empty for calls that nobody counts.
            timeout: for all attempts together, in seconds.

        Returns:
            The response, serialized.

        Raises:
            EnsconceError: see :func:`as_ours`; or why there is no connection.
        """
        conduct = self._conduct
        method = self._methods.get(path) or self._methods.setdefault(
            path, MultiCallable(self._pool, "unary_unary", (path,), {})
        )
        conduct.budget.earn()
        deadline = conduct.clock() + timeout
        avoid: set[str] = set()
        attempt = 0
        while True:
            attempt += 1
            lease = self._pool.lease(avoid)
            began, delay = conduct.clock(), conduct.delay(kind)
            try:
                if delay is None or delay >= deadline - began:
                    with lease:
                        response: bytes = method.on(lease.seat)(request, timeout=deadline - began)
                    answered = lease.replica_id
                else:
                    response, answered = self._hedged(method, request, lease, avoid, delay, deadline)
            except grpc.RpcError as error:
                reason = true_reason(lease, error)
                others = bool(self._pool.replicas)
                self._sleep(conduct.wait(attempt, error, reason, deadline, others=others))
                avoid.add(lease.replica_id)
            else:
                conduct.done(kind, began, answered)
                return response

    def _hedged(
        self,
        method: MultiCallable,
        request: bytes,
        lease: Lease[grpc.Channel],
        avoid: set[str],
        delay: float,
        deadline: float,
    ) -> tuple[bytes, str]:
        """The first answer of up to two calls, and who gave it."""
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        clock = self._conduct.clock
        calls: dict[Any, str] = {}

        def begin(lease: Lease[grpc.Channel]) -> None:
            try:
                call = method.on(lease.seat).future(request, timeout=deadline - clock())
            except BaseException:
                lease.release()
                raise
            calls[call] = lease.replica_id
            call.add_done_callback(lambda _: lease.release())
            call.add_done_callback(done.put)

        begin(lease)
        try:
            try:
                first = done.get(timeout=delay)
            except queue.Empty:
                if self._conduct.budget.take():
                    begin(self._pool.lease({*avoid, lease.replica_id}))
                first = done.get()
            if first.exception() is not None and len(calls) > 1:
                first = done.get()
            return first.result(), calls[first]
        finally:
            for call in calls:
                call.cancel()


_OURS = {
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnreachableError,
    grpc.StatusCode.CANCELLED: UnreachableError,
    grpc.StatusCode.INTERNAL: EnsconceError,
    grpc.StatusCode.UNKNOWN: EnsconceError,
    grpc.StatusCode.DATA_LOSS: EnsconceError,
}


def as_ours(error: Any) -> EnsconceError:
    """A status of gRPC as an error of ours: ``predict.unavailable``, ``predict.not_found`` and so on."""
    code: grpc.StatusCode = error.code()
    kind = _OURS.get(code, InputError)
    return kind(
        f"predict.{code.name.lower()}",
        f"the prediction failed: {(error.details() or 'no details')[:500]}",
        found=code.name,
        remedy="try again" if kind is UnreachableError else None,
    )
