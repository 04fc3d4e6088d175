"""An ordinary ``grpc.aio.Channel`` to replicas that were accepted."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Unpack

import grpc
import grpc.aio

from ensconce.appraisal.policy import Policy
from ensconce.client.channel import MultiCallable, channel_options, true_reason
from ensconce.client.loops import call_in, run_in
from ensconce.client.pool import CONNECTIONS, Pool
from ensconce.client.seats import Lease, Places
from ensconce.client.service import Service, ServiceOptions
from ensconce.client.tunnel import Tunnel
from ensconce.errors import InputError

__all__ = ["AsyncAttestedChannel", "connect_async", "open_async_channel"]


async def connect_async(
    target: str | Sequence[str],
    policy: Path | str | Policy | None,
    *,
    connections: int = CONNECTIONS,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    **options: Unpack[ServiceOptions],
) -> AsyncAttestedChannel:
    """As :func:`ensconce.client.channel.connect`, for the event loop that it is called in.

    Args:
        target: see there.
        policy: see there.
        connections: how many to have at least.
        interceptors: as :func:`grpc.aio.insecure_channel` takes them.
        options: see there.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    service = await asyncio.to_thread(functools.partial(Service.open, target, policy, **options))
    return await open_async_channel(service, connections=connections, interceptors=interceptors)


async def open_async_channel(
    service: Service, *, connections: int = CONNECTIONS, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()
) -> AsyncAttestedChannel:
    """As :func:`connect_async`, for a service."""
    loop = asyncio.get_running_loop()

    def make(tunnel: Tunnel) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            f"unix:{tunnel.path}", options=channel_options(service), interceptors=list(interceptors) or None
        )

    pool = Pool(service, "h2", make, lambda channel: run_in(loop, channel.close(None)), connections=connections)
    return AsyncAttestedChannel(await asyncio.to_thread(pool.open))


class AsyncAttestedChannel(grpc.aio.Channel):
    """A channel over a pool, see :class:`ensconce.client.channel.AttestedChannel`.

    Attributes:
        pool: open; closed with the channel.
    """

    def __init__(self, pool: Places[Any]) -> None:
        self.pool = pool
        self._is_closed = False
        self._changed = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        pool.watch(lambda: call_in(loop, self._changed.set))

    def check_loop(self) -> None:
        """Refuse to be used in another event loop than the one that it was made in.

        Raises:
            InputError: ``client.loop``.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise InputError(
                "client.loop", "this channel belongs to another event loop", remedy="make one in each event loop"
            )

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.aio.Channel.unary_unary`; calls raise the true reason when they are awaited."""
        return _Method(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.aio.Channel.unary_stream`."""
        return _Method(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.aio.Channel.stream_unary`; calls raise the true reason when they are awaited."""
        return _Method(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.aio.Channel.stream_stream`."""
        return _Method(self, "stream_stream", args, kwargs)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 - it does
        """As :meth:`grpc.aio.Channel.get_state`: READY as long as there is an accepted replica."""
        if self._is_closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        there = bool(self.pool.replicas)
        return grpc.ChannelConnectivity.READY if there else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As :meth:`grpc.aio.Channel.wait_for_state_change`."""
        while self.get_state() is last_observed_state:
            self._changed.clear()
            await self._changed.wait()

    async def channel_ready(self) -> None:
        """As :meth:`grpc.aio.Channel.channel_ready`."""
        while (state := self.get_state()) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise grpc.aio.UsageError("Channel is closed.")
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel and its connections; calls under way have ``grace`` seconds."""
        self._is_closed = True
        channels = self.pool.channels
        await asyncio.gather(*(channel.close(grace) for channel in channels))
        await asyncio.to_thread(self.pool.close)

    async def __aenter__(self) -> AsyncAttestedChannel:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class _Method(MultiCallable):
    def __init__(self, channel: AsyncAttestedChannel, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(channel.pool, kind, args, kwargs)
        self._channel = channel

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._channel.check_loop()
        lease = self._pool.lease()
        try:
            call = self.on(lease.seat)(*args, **kwargs)
        except BaseException:
            lease.release()
            raise
        call.add_done_callback(lambda _: lease.release())
        return _Call(call, lease)


class _Call:
    """A call of gRPC's with the true reason where it fails."""

    def __init__(self, call: Any, lease: Lease[grpc.aio.Channel]) -> None:
        self._call, self._lease = call, lease

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __aiter__(self) -> Any:
        return self._call.__aiter__()

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.aio.AioRpcError as error:
            reason = true_reason(self._lease, error)
            if reason is not None:
                raise reason from error
            raise
