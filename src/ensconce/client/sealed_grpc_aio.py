"""As :mod:`ensconce.client.sealed_grpc`, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from ensconce.client.channel import OPTIONS
from ensconce.client.channel_aio import AsyncAttestedChannel
from ensconce.client.pool import CONNECTIONS
from ensconce.client.routes import open_async_routes
from ensconce.client.sealed import Sealed, Sealer, not_sealing, sealers
from ensconce.client.sealed_grpc import (
    Unsealable,
    answer_of,
    balancer_of,
    clear_error,
    key_timeout,
    statement_of,
)
from ensconce.client.service import Service
from ensconce.ratls.sealing import SEALING_KEY_METHOD, Statement
from ensconce.tfserving.messages import SealingKeyRequest

__all__ = ["async_sealed_channel", "open_async_sealed"]


async def async_sealed_channel(
    channel: grpc.aio.Channel, service: Service, *, routes: int = CONNECTIONS
) -> AsyncAttestedChannel:
    """As :func:`ensconce.client.sealed_grpc.sealed_channel`, for the event loop that it is called in.

    Args:
        channel: see there; so are the others. Calls are tasks of asyncio's.
        service: see there.
        routes: see there.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    return AsyncAttestedChannel(await open_async_routes([_Sealing(channel, each) for each in sealers(service, routes)]))


async def open_async_sealed(service: Service, *, connections: int = CONNECTIONS) -> AsyncAttestedChannel:
    """As :func:`ensconce.client.sealed_grpc.open_sealed`, for the event loop that it is called in.

    Args:
        service: see there.
        connections: see there.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    channel = grpc.aio.secure_channel(balancer_of(service), grpc.ssl_channel_credentials(), options=OPTIONS)
    try:
        return await async_sealed_channel(channel, service, routes=connections)
    except BaseException:
        await channel.close(None)
        raise


class _Sealing(Unsealable):
    """Over one route; as much of a ``grpc.aio.Channel`` as ``AsyncAttestedChannel`` asks of it."""

    def __init__(self, channel: grpc.aio.Channel, sealer: Sealer) -> None:
        self.channel, self.sealer = channel, sealer
        self._key = channel.unary_unary(SEALING_KEY_METHOD, None, None)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        call = self.channel.unary_unary(method, None, None)
        loop = asyncio.get_running_loop()

        async def ask(request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
            until = None if timeout is None else loop.time() + timeout

            def left() -> float | None:
                return None if until is None else max(0.0, until - loop.time())

            async def send(sealed: Sealed) -> bytes | None:
                fields = (*(metadata or ()), *sealed.fields.items())
                try:
                    answer: bytes = await call(sealed.body, timeout=left(), metadata=fields, **options)
                except grpc.aio.AioRpcError as error:
                    if (failure := clear_error(error)) is not None:
                        raise failure from error
                    return None
                return answer

            body = request if request_serializer is None else request_serializer(request)

            async def ask_key(nonce: bytes) -> Statement:
                return await self.ask_key(nonce, left())

            status, answer = await self.sealer.ask_async("grpc", method, body, ask_key, send)
            return answer_of(status, answer, response_deserializer)

        return lambda *args, **kwargs: loop.create_task(ask(*args, **kwargs))

    async def close(self, grace: float | None = None) -> None:
        await self.channel.close(grace)

    async def ask_key(self, nonce: bytes, left: float | None = None) -> Statement:
        try:
            answer = await self._key(
                SealingKeyRequest(nonce=nonce).SerializeToString(),
                metadata=tuple(self.sealer.route.items()),
                timeout=key_timeout(left),
            )
        except grpc.aio.AioRpcError as error:
            clear_error(error)
            raise not_sealing(f"{error.code().name}: {error.details()}") from error
        return statement_of(answer)
