"""An ordinary ``grpc.Channel`` to replicas that were accepted, for TensorFlow Serving's own stubs and any others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Unpack
from weakref import WeakKeyDictionary

import grpc

from ensconce.appraisal.policy import Policy
from ensconce.client.pool import CONNECTIONS, Pool
from ensconce.client.seats import Lease, Place, Places
from ensconce.client.service import Service, ServiceOptions
from ensconce.errors import EnsconceError

__all__ = [
    "MAX_MESSAGE",
    "OPTIONS",
    "AttestedChannel",
    "MultiCallable",
    "channel_options",
    "connect",
    "open_channel",
    "true_reason",
]

_log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 256 * 1024 * 1024
"""Longest message that is sent or received, in bytes."""

OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # Quick to find the next replica when one has gone.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # gRPC makes a call again that no server has looked at (GOAWAY, REFUSED_STREAM: "transparent retries"), as long as
    # it holds the request, however long that is. Nothing else is made again: no service configuration is looked for.
    ("grpc.enable_retries", 1),
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
"""Of gRPC's channels."""

_CONNECTION_FAILURES: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def connect(
    target: str | Sequence[str],
    policy: Path | str | Policy | None,
    *,
    connections: int = CONNECTIONS,
    **options: Unpack[ServiceOptions],
) -> AttestedChannel:
    """Open a channel; a replica has been accepted when this returns, and later connections are judged as they are made.

    Args:
        target: see :meth:`ensconce.client.service.Service.open`.
        policy: see there.
        connections: how many to have at least.
        options: see there; ``authority`` is needed.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: see there, and
            :meth:`ensconce.client.pool.Pool.open`.
    """
    return open_channel(
        Service.open(target, policy, **options),
        connections=connections,
    )


def open_channel(service: Service, *, connections: int = CONNECTIONS) -> AttestedChannel:
    """As :func:`connect`, for a service."""
    pool = Pool(
        service,
        "h2",
        lambda tunnel: grpc.insecure_channel(f"unix:{tunnel.path}", options=channel_options(service)),
        lambda channel: channel.close(),
        connections=connections,
    )
    return AttestedChannel(pool.open())


def channel_options(service: Service) -> list[tuple[str, Any]]:
    """The options of gRPC's channel through a tunnel."""
    return [("grpc.default_authority", service.server_name), *OPTIONS]


def true_reason(lease: Lease[Any], error: Any) -> EnsconceError | None:
    """Why a call failed, where gRPC says no more than UNAVAILABLE because a replica was refused or not reached."""
    return lease.failure if error.code() in _CONNECTION_FAILURES else None


class AttestedChannel(grpc.Channel):
    """A channel over a pool: each call takes the replica with the fewest calls under way.

    Where gRPC would say no more than UNAVAILABLE because a replica was refused or unreachable, a unary call raises that
    :class:`ensconce.errors.EnsconceError` instead. For other kinds of calls and for futures ``pool.failures`` has it.

    Attributes:
        pool: open; closed with the channel.
    """

    def __init__(self, pool: Places[Any]) -> None:
        self.pool = pool
        self._subscribers: dict[Callable[..., Any], grpc.ChannelConnectivity] = {}
        self._is_closed = False
        pool.watch(self._notify)

    def subscribe(self, callback: Callable[..., Any], try_to_connect: bool | None = False) -> None:  # noqa: ARG002 - it does
        """As :meth:`grpc.Channel.subscribe`: READY as long as there is an accepted replica."""
        state = self._subscribers[callback] = self._state()
        callback(state)

    def unsubscribe(self, callback: Callable[..., Any]) -> None:
        """As :meth:`grpc.Channel.unsubscribe`."""
        self._subscribers.pop(callback, None)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.unary_unary`; calls raise the true reason."""
        return _UnaryUnary(self.pool, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.unary_stream`."""
        return _Streaming(self.pool, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.stream_unary`; calls raise the true reason."""
        return _UnaryUnary(self.pool, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.stream_stream`."""
        return _Streaming(self.pool, "stream_stream", args, kwargs)

    def close(self) -> None:
        """Close the channel and its connections."""
        self._is_closed = True
        self.pool.close()

    def __enter__(self) -> AttestedChannel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _state(self) -> grpc.ChannelConnectivity:
        if self._is_closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        there = bool(self.pool.replicas)
        return grpc.ChannelConnectivity.READY if there else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def _notify(self) -> None:
        state = self._state()
        for callback, known in list(self._subscribers.items()):
            if known is not state:
                self._subscribers[callback] = state
                try:
                    callback(state)
                except Exception:  # of the caller's, in a thread that the pool needs
                    _log.exception("a subscriber of connectivity failed")


class MultiCallable:
    """One method on every seat of a pool.

    Args:
        pool: see :class:`AttestedChannel`.
        kind: the method of a channel that makes it, such as ``unary_unary``.
        args: of that method.
        kwargs: likewise.
    """

    def __init__(self, pool: Places[Any], kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pool, self._kind, self._args, self._kwargs = pool, kind, args, kwargs
        self._made: WeakKeyDictionary[Place[Any], Any] = WeakKeyDictionary()

    def on(self, seat: Place[Any]) -> Any:
        """What calls it on one seat."""
        made = self._made.get(seat)
        if made is None:
            made = self._made[seat] = getattr(seat.channel, self._kind)(*self._args, **self._kwargs)
        return made


class _UnaryUnary(MultiCallable):
    # What grpc.UnaryUnaryMultiCallable declares; that class is generic for type checkers only.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(lambda method: method(*args, **kwargs))

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(lambda method: method.with_call(*args, **kwargs))

    def future(self, *args: Any, **kwargs: Any) -> Any:
        lease = self._pool.lease()
        try:
            future = self.on(lease.seat).future(*args, **kwargs)
        except BaseException:
            lease.release()
            raise
        future.add_done_callback(lambda _: lease.release())
        return future

    def _call(self, call: Callable[[Any], Any]) -> Any:
        with self._pool.lease() as lease:
            try:
                return call(self.on(lease.seat))
            except grpc.RpcError as error:
                reason = true_reason(lease, error)
                if reason is not None:
                    raise reason from error
                raise


class _Streaming(MultiCallable):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        lease = self._pool.lease()
        try:
            call = self.on(lease.seat)(*args, **kwargs)
        except BaseException:
            lease.release()
            raise
        if not call.add_callback(lease.release):
            lease.release()
        return call
