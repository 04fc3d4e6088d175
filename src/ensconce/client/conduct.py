"""What is done to have a call answered, without doing it: when it is made again, where, and when also elsewhere."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from ensconce.client.channel import MultiCallable, true_reason
from ensconce.client.hedge import Hedge, Latencies, check_hedge
from ensconce.client.retry import ATTEMPTS, Budget, may_retry, pause
from ensconce.client.seats import Lease, Places
from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["TIMEOUT_S", "Attempts", "Conduct", "Methods", "as_ours"]

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


class Attempts:
    """One call, from its first attempt to its answer or to the error that nothing helps against.

    Args:
        pool: where it goes.
        conduct: what it has in common with others.
        kind: calls of one kind take about as long: the model's name. Empty for calls that nobody counts.
        timeout: for all attempts together, in seconds.
    """

    def __init__(self, pool: Places[Any], conduct: Conduct, kind: str, timeout: float) -> None:
        self._pool, self._conduct, self._kind = pool, conduct, kind
        self._deadline = conduct.clock() + timeout
        self._began = 0.0
        self._count = 0
        self._avoid: set[str] = set()
        self._lease: Lease[Any]
        conduct.budget.earn()

    def begin(self) -> Lease[Any]:
        """Where the next attempt goes; the caller releases it.

        Raises:
            InputError: ``client.closed``.
        """
        self._count += 1
        self._lease = self._pool.lease(self._avoid)
        self._began = self._conduct.clock()
        return self._lease

    @property
    def left(self) -> float:
        """Seconds until the call has to be answered."""
        return self._deadline - self._conduct.clock()

    @property
    def delay(self) -> float | None:
        """Seconds until this attempt is also made elsewhere; ``None`` for never."""
        delay = self._conduct.delay(self._kind)
        return delay if delay is not None and delay < self.left else None

    def elsewhere(self) -> Lease[Any] | None:
        """Where this attempt is also made, if the budget lasts; the caller releases it."""
        if not self._conduct.budget.take():
            return None
        return self._pool.lease({*self._avoid, self._lease.replica_id})

    def failed(self, error: Any) -> float:
        """The attempt has failed.

        Args:
            error: a ``grpc.RpcError``.

        Returns:
            Seconds until the next.

        Raises:
            EnsconceError: there is no next: why there is no connection, or see :func:`as_ours`.
        """
        lease, conduct = self._lease, self._conduct
        reason = true_reason(lease, error)
        if may_retry(error.code(), reason, others=bool(self._pool.replicas)) and self._count < ATTEMPTS:
            seconds = pause(self._count, conduct.chance())
            # What a lost connection took with it is asked once more whatever the budget says: however many calls were
            # under way there, whoever was to answer them is gone, so that nobody is asked for more than before.
            is_free = self._count == 1 and lease.is_cut
            if seconds < self.left and (is_free or conduct.budget.take()):
                self._avoid.add(lease.replica_id)
                return seconds
        raise reason or as_ours(error) from error

    def answered(self, replica_id: str) -> None:
        """The attempt has been answered, by this replica."""
        self._conduct.done(self._kind, self._began, replica_id)


class Methods:
    """Unary methods of serialized messages, on every seat of a pool.

    Args:
        pool: see :class:`ensconce.client.channel.MultiCallable`.
    """

    def __init__(self, pool: Places[Any]) -> None:
        self._pool = pool
        self._made: dict[str, MultiCallable] = {}

    def named(self, path: str) -> MultiCallable:
        """One of them, such as ``/tensorflow.serving.PredictionService/Predict``."""
        return self._made.get(path) or self._made.setdefault(
            path, MultiCallable(self._pool, "unary_unary", (path,), {})
        )


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
