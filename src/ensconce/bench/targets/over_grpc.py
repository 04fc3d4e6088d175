"""Requests over gRPC: attested, TLS, or in the clear."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from ensconce.addresses import Address
from ensconce.bench.tally import AnswerError
from ensconce.bench.targets.carrier import MAX_ANSWER, failed_check
from ensconce.bench.targets.dialect import Answer, Ask
from ensconce.client.channel import true_reason
from ensconce.client.channel_aio import AsyncAttestedChannel
from ensconce.client.seats import Place
from ensconce.errors import EnsconceError
from ensconce.files import read_bounded

__all__ = ["AttestedGrpc", "PlainGrpc", "TlsFiles"]

_MAX_PEM: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What TLS without evidence goes by; files in PEM.

    Attributes:
        authority: certificates that a server's must come from.
        certificate: of the client, for mutual TLS.
        key: its private key.
        server_name: in the server's certificate; the target's host where there is none.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


class AttestedGrpc:
    """Each request goes to the accepted replica with the fewest under way."""

    def __init__(self, channel: AsyncAttestedChannel) -> None:
        self._channel, self._pool = channel, channel.pool
        self._methods: WeakKeyDictionary[Place[grpc.aio.Channel], dict[str, Any]] = WeakKeyDictionary()

    async def ask(self, ask: Ask, timeout: float) -> Answer:
        """See :class:`ensconce.bench.targets.carrier.Carrier`."""
        try:
            lease = self._pool.lease()
        except EnsconceError as error:
            raise failed_check(error) from error
        with lease:
            methods = self._methods.setdefault(lease.seat, {})
            method = methods.get(ask.path)
            if method is None:
                method = methods[ask.path] = lease.seat.channel.unary_unary(ask.path, None, None)
            try:
                return Answer(await method(ask.body, timeout=timeout), lease.replica_id)
            except grpc.aio.AioRpcError as error:
                reason = true_reason(lease, error)
                raise (failed_check(reason) if reason is not None else _failed(error)) from (reason or error)

    async def close(self) -> None:
        """Close the connections."""
        await self._channel.close()


class PlainGrpc:
    """Connections that prove nothing, used in turn.

    Args:
        addresses: of the service.
        tls: ``None`` for none.
        connections: at least one to each address.
    """

    def __init__(self, addresses: Sequence[Address], tls: TlsFiles | None, connections: int) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.enable_retries", 0),
            # Or all of them would share one connection.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if tls is not None and tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        count = max(connections, len(addresses))
        self._channels = [
            _channel(str(address), tls, options) for address in itertools.islice(itertools.cycle(addresses), count)
        ]
        self._methods: dict[str, Any] = {}

    async def ask(self, ask: Ask, timeout: float) -> Answer:
        """See :class:`ensconce.bench.targets.carrier.Carrier`."""
        methods = self._methods.get(ask.path)
        if methods is None:
            made = [channel.unary_unary(ask.path, None, None) for channel in self._channels]
            methods = self._methods[ask.path] = itertools.cycle(made)
        try:
            return Answer(await next(methods)(ask.body, timeout=timeout), None)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))


def _channel(address: str, tls: TlsFiles | None, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    authority, key, certificate = (
        None if path is None else read_bounded(path, _MAX_PEM) for path in (tls.authority, tls.key, tls.certificate)
    )
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _failed(error: grpc.aio.AioRpcError) -> AnswerError:
    return AnswerError(f"grpc {error.code().name}", error.details() or "no details")
