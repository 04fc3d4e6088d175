"""As :mod:`ensconce.client.calls`, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ensconce.client.channel import MultiCallable
from ensconce.client.channel_aio import AsyncAttestedChannel
from ensconce.client.conduct import Attempts, Conduct, Methods
from ensconce.client.seats import Lease
from ensconce.errors import UnreachableError

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
        self._channel, self._methods = channel, Methods(channel.pool)
        self._conduct, self._sleep = conduct, sleep

    async def call(self, path: str, request: bytes, *, kind: str, timeout: float) -> bytes:
        """One call, see :meth:`ensconce.client.calls.Caller.call`.

        Args:
            path: see there.
            request: see there.
            kind: see there.
            timeout: see there.

        Raises:
            EnsconceError: see there.
            InputError: ``client.loop``: the channel belongs to another event loop.
        """
        self._channel.check_loop()
        method = self._methods.named(path)
        attempts = Attempts(self._channel.pool, self._conduct, kind, timeout)
        while True:
            lease = attempts.begin()
            try:
                response, by = await self._attempt(attempts, method, request, lease)
            except grpc.RpcError as error:
                await self._sleep(attempts.failed(error))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancels the caller: this is how gRPC tells that its channel was closed meanwhile.
                raise UnreachableError(
                    "predict.cancelled", "the prediction failed: the client was closed meanwhile"
                ) from None
            else:
                attempts.answered(by)
                return response

    async def _attempt(
        self, attempts: Attempts, method: MultiCallable, request: bytes, lease: Lease[Any]
    ) -> tuple[bytes, str]:
        """The answer, of up to two calls the first, and who gave it."""

        async def ask(lease: Lease[Any]) -> bytes:
            with lease:
                response: bytes = await method.on(lease.seat)(request, timeout=attempts.left)
                return response

        delay = attempts.delay
        if delay is None:
            return await ask(lease), lease.replica_id
        calls: dict[asyncio.Task[bytes], str] = {}

        def begin(lease: Lease[Any]) -> None:
            task = asyncio.create_task(ask(lease))
            # One that is cancelled before it has begun would not release it.
            task.add_done_callback(lambda _: lease.release())
            calls[task] = lease.replica_id

        begin(lease)
        try:
            done, _ = await asyncio.wait(calls, timeout=delay)
            if not done and (other := attempts.elsewhere()) is not None:
                begin(other)
            waiting: set[asyncio.Task[bytes]] = set(calls)
            while waiting and not any(map(_is_answered, done)):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            first = next(filter(_is_answered, done), next(iter(done)))
            return first.result(), calls[first]
        finally:
            for call in calls:
                call.cancel()
            # None of them outlives this, and no error of theirs is left for the event loop to complain about.
            await asyncio.gather(*calls, return_exceptions=True)


def _is_answered(call: asyncio.Task[bytes]) -> bool:
    return not call.cancelled() and call.exception() is None
