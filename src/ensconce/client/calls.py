"""Unary calls that change nothing in a server: made again where that helps, and elsewhere where one takes too long."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import grpc

from ensconce.client.channel import AttestedChannel, MultiCallable
from ensconce.client.conduct import Attempts, Conduct, Methods
from ensconce.client.seats import Lease

__all__ = ["Caller"]


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
        self._pool, self._methods = channel.pool, Methods(channel.pool)
        self._conduct, self._sleep = conduct, sleep

    def call(self, path: str, request: bytes, *, kind: str, timeout: float) -> bytes:
        """One call.

        Args:
            path: the method's, such as ``/tensorflow.serving.PredictionService/Predict``.
            request: serialized.
            kind: see :class:`ensconce.client.conduct.Attempts`.
            timeout: for all attempts together, in seconds.

        Returns:
            The response, serialized.

        Raises:
            EnsconceError: see :func:`ensconce.client.conduct.as_ours`; or why there is no connection.
        """
        method = self._methods.named(path)
        attempts = Attempts(self._pool, self._conduct, kind, timeout)
        while True:
            lease = attempts.begin()
            try:
                response, by = self._attempt(attempts, method, request, lease)
            except grpc.RpcError as error:
                self._sleep(attempts.failed(error))
            else:
                attempts.answered(by)
                return response

    def _attempt(
        self, attempts: Attempts, method: MultiCallable, request: bytes, lease: Lease[Any]
    ) -> tuple[bytes, str]:
        """The answer, of up to two calls the first, and who gave it."""
        delay = attempts.delay
        if delay is None:
            with lease:
                return method.on(lease.seat)(request, timeout=attempts.left), lease.replica_id
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        calls: dict[Any, str] = {}

        def begin(lease: Lease[Any]) -> None:
            try:
                call = method.on(lease.seat).future(request, timeout=attempts.left)
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
                other = attempts.elsewhere()
                if other is not None:
                    begin(other)
                first = done.get()
            if len(calls) > 1 and (first.cancelled() or first.exception() is not None):
                first = done.get()
            return first.result(), calls[first]
        finally:
            for call in calls:
                call.cancel()
