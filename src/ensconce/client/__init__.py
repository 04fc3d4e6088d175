"""The client's side: nothing is sent to a server before its evidence was accepted, on any connection.

=====================================================  =============================================================
:func:`connect`, :func:`connect_async`                 a channel for any stubs of gRPC, TensorFlow Serving's among them
:func:`http_transport`, :func:`async_http_transport`   a transport for httpx
:class:`Client`, :class:`AsyncClient`                  predictions, NumPy in and NumPy out
:func:`sealed_channel`, :func:`async_sealed_channel`,  the same where TLS ends before the replica: bodies sealed to it
:func:`sealed_transport`,
:func:`async_sealed_transport`
:class:`Service`                                       whom to believe, for those who build on the layers below
=====================================================  =============================================================

From below: ``attested`` opens one connection and has it judged (``leaf``, ``freshness``); a ``tunnel`` leads what gRPC
and httpx say into such connections (``pump``); a ``pool`` shares calls between ``seats``, each a tunnel, as its
``roster`` says;
``calls`` are made again (``retry``) and elsewhere (``hedge``) as ``conduct`` has it; ``questions`` are what they ask.
Behind a balancer that ends TLS, ``routes`` stand for the pool, and what goes over them is ``sealed``. ``*_aio`` is the
same on an event loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensconce.client.channel import connect
    from ensconce.client.channel_aio import connect_async
    from ensconce.client.predict import Client
    from ensconce.client.predict_aio import AsyncClient
    from ensconce.client.sealed_grpc import sealed_channel
    from ensconce.client.sealed_grpc_aio import async_sealed_channel
    from ensconce.client.sealed_http import async_sealed_transport, sealed_transport
    from ensconce.client.service import Service
    from ensconce.client.transport import async_http_transport, http_transport

__all__ = [
    "AsyncClient",
    "Client",
    "Service",
    "async_http_transport",
    "async_sealed_channel",
    "async_sealed_transport",
    "connect",
    "connect_async",
    "http_transport",
    "sealed_channel",
    "sealed_transport",
]

_HOMES = {
    "AsyncClient": "predict_aio",
    "Client": "predict",
    "Service": "service",
    "async_http_transport": "transport",
    "async_sealed_channel": "sealed_grpc_aio",
    "async_sealed_transport": "sealed_http",
    "connect": "channel",
    "connect_async": "channel_aio",
    "http_transport": "transport",
    "sealed_channel": "sealed_grpc",
    "sealed_transport": "sealed_http",
}


def __getattr__(name: str) -> Any:
    # Each imported where it is used: a command that only verifies needs neither gRPC nor NumPy.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
