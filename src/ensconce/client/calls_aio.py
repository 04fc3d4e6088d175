"""As :mod:`ensconce.client.calls`, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from ensconce.client.calls import Conduct
from ensconce.client.channel import true_reason
from ensconce.client.channel_aio import AsyncAttestedChannel
from ensconce.client.pool import Lease, Place

__all__ = ["AsyncCaller"]


class AsyncCaller:
    """Makes calls over a channel, for one event loop.

    Args:
        channel: with a pool.
        conduct: how.
        sleep: lets seconds pass.
    """

    def __init__(
        self,
        channel: AsyncAttestedChannel,
        conduct: Conduct,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._pool = channel.pool
        self._conduct, self._sleep = conduct, sleep
        self._methods: WeakKeyDictionary[Place[grpc.aio.Channel], dict[str, Any]] = WeakKeyDictionary()

    async def call(self, path: str, request: bytes, *, kind: str, timeout: float) -> bytes:
        """One call, see :meth:`ensconce.client.calls.Caller.call`.

        Args:
            path: see there.
            request: see there.
            kind: see there.
            timeout: see there.

        Raises:
            EnsconceError: see there.
        """
        conduct = self._conduct
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
                    response = await self._once(lease, path, request, deadline)
                    answered = lease.replica_id
                else:
                    response, answered = await self._hedged(lease, path, request, avoid, delay, deadline)
            except grpc.aio.AioRpcError as error:
                reason = true_reason(lease, error)
                others = bool(self._pool.replicas)
                await self._sleep(conduct.wait(attempt, error, reason, deadline, others=others))
                avoid.add(lease.replica_id)
            else:
                conduct.done(kind, began, answered)
                return response

    async def _once(self, lease: Lease[grpc.aio.Channel], path: str, request: bytes, deadline: float) -> bytes:
        with lease:
            methods = self._methods.setdefault(lease.seat, {})
            method = methods.get(path) or methods.setdefault(path, lease.seat.channel.unary_unary(path, None, None))
            response: bytes = await method(request, timeout=deadline - self._conduct.clock())
            return response

    async def _hedged(
        self,
        lease: Lease[grpc.aio.Channel],
        path: str,
        request: bytes,
        avoid: set[str],
        delay: float,
        deadline: float,
    ) -> tuple[bytes, str]:
        """The first answer of up to two calls, and who gave it."""
        calls: dict[asyncio.Task[bytes], str] = {}

        def begin(lease: Lease[grpc.aio.Channel]) -> None:
            task = asyncio.create_task(self._once(lease, path, request, deadline))
            # One that is cancelled before it has begun would not release it.
            task.add_done_callback(lambda _: lease.release())
            calls[task] = lease.replica_id

        begin(lease)
        try:
            done, waiting = await asyncio.wait(calls, timeout=delay)
            if not done:
                if self._conduct.budget.take():
                    begin(self._pool.lease({*avoid, lease.replica_id}))
                done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                if waiting and all(each.exception() is not None for each in done):
                    done, _ = await asyncio.wait(waiting)
            first = next((each for each in done if each.exception() is None), next(iter(done)))
            return first.result(), calls[first]
        finally:
            for call in calls:
                call.cancel()
