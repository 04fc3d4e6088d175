"""An ordinary ``grpc.Channel`` to replicas that were accepted, for TensorFlow Serving's own stubs and any others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.attested import connect_tls
from ensconce.client.tunnel import Tunnel

__all__ = ["MAX_MESSAGE", "AttestedChannel", "connect"]

MAX_MESSAGE = 256 * 1024 * 1024
"""Longest message that is sent or received, in bytes."""

_CONNECTION_FAILURES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def connect(
    target: Address,
    server_name: str,
    appraiser: Appraiser,
    *,
    authority: x509.Certificate | None,
    timeout: float = 10.0,
) -> AttestedChannel:
    """Open a channel; its first connection has been judged when this returns, later ones are judged as they are made.

    Args:
        target: where the service's gRPC API is reached.
        server_name: the service's DNS name.
        appraiser: judges the replicas.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        timeout: for connecting, in seconds.

    Raises:
        UnreachableError, EvidenceError, RefusedError: see :func:`ensconce.client.attested.connect_tls`.
    """
    tunnel = Tunnel(
        functools.partial(connect_tls, target, server_name, appraiser, authority=authority, alpn="h2", timeout=timeout)
    )
    tunnel.start()
    return AttestedChannel(tunnel, server_name)


class AttestedChannel(grpc.Channel):
    """A channel through a tunnel of its own; it has one connection at a time, to one replica.

    Where gRPC would say no more than UNAVAILABLE because a replica was refused or unreachable, a unary call raises that
    :class:`ensconce.errors.EnsconceError` instead. For other kinds of calls and for futures ``tunnel.failure`` has it.

    Args:
        tunnel: started; closed with the channel.
        server_name: the ``:authority`` of requests.
    """

    def __init__(self, tunnel: Tunnel, server_name: str) -> None:
        self.tunnel = tunnel
        self._channel = grpc.insecure_channel(
            f"unix:{tunnel.path}",
            options=[
                ("grpc.default_authority", server_name),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                # Quick to find the next replica when one has gone.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ],
        )

    def subscribe(self, callback: Callable[..., Any], try_to_connect: bool | None = False) -> None:
        """As :meth:`grpc.Channel.subscribe`."""
        self._channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[..., Any]) -> None:
        """As :meth:`grpc.Channel.unsubscribe`."""
        self._channel.unsubscribe(callback)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.unary_unary`; calls raise the true reason."""
        return _UnaryUnary(self._channel.unary_unary(*args, **kwargs), self.tunnel)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.unary_stream`."""
        return self._channel.unary_stream(*args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.stream_unary`."""
        return self._channel.stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`grpc.Channel.stream_stream`."""
        return self._channel.stream_stream(*args, **kwargs)

    def close(self) -> None:
        """Close the channel and its tunnel."""
        self._channel.close()
        self.tunnel.close()

    def __enter__(self) -> AttestedChannel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _UnaryUnary:
    # What grpc.UnaryUnaryMultiCallable declares; that class is generic for type checkers only.

    def __init__(self, inner: Any, tunnel: Tunnel) -> None:
        self._inner = inner
        self._tunnel = tunnel

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._true_reason(self._inner, *args, **kwargs)

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._true_reason(self._inner.with_call, *args, **kwargs)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.future(*args, **kwargs)

    def _true_reason(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except grpc.RpcError as error:
            failure = self._tunnel.failure
            if failure is not None and error.code() in _CONNECTION_FAILURES:
                raise failure from error
            raise
