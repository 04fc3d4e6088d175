"""Transports for httpx to replicas that were accepted: ``httpx.Client(transport=http_transport(...))``."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import httpx

from ensconce.appraisal.policy import Policy
from ensconce.client.loops import run_in
from ensconce.client.pool import CONNECTIONS, Pool
from ensconce.client.seats import Lease, Places
from ensconce.client.service import Service, ServiceOptions
from ensconce.errors import UnreachableError

__all__ = [
    "AsyncAttestedTransport",
    "AttestedTransport",
    "async_http_transport",
    "check_framed",
    "http_transport",
    "open_async_transport",
    "open_transport",
]


def http_transport(
    target: str | Sequence[str],
    policy: Path | str | Policy | None,
    *,
    connections: int = CONNECTIONS,
    **options: Unpack[ServiceOptions],
) -> AttestedTransport:
    """Open a transport; a replica has been accepted when this returns, later connections are judged as they are made.

    Requests go to the service, whatever host their URL names; its scheme is ``http``, because TLS is below it:
    ``httpx.Client(transport=..., base_url="http://digits.example.test", trust_env=False)``.

    Args:
        target: where the REST API is reached, see :meth:`ensconce.client.service.Service.open`.
        policy: see there.
        connections: to be shared out at least; HTTP/1.1 takes more when there are more requests at once.
        options: see there; ``authority`` is needed.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    service = Service.open(target, policy, **options)
    return open_transport(service, connections=connections)


async def async_http_transport(
    target: str | Sequence[str],
    policy: Path | str | Policy | None,
    *,
    connections: int = CONNECTIONS,
    **options: Unpack[ServiceOptions],
) -> AsyncAttestedTransport:
    """As :func:`http_transport`, for ``httpx.AsyncClient``.

    Args:
        target: see there.
        policy: see there.
        connections: to be shared out at least.
        options: see there.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    service = await asyncio.to_thread(functools.partial(Service.open, target, policy, **options))
    return await open_async_transport(service, connections=connections)


def open_transport(service: Service, *, connections: int = CONNECTIONS) -> AttestedTransport:
    """As :func:`http_transport`, for a service."""
    pool = Pool(
        service,
        "http/1.1",
        # trust_env: a proxy from the environment would be sent the request in the clear.
        lambda tunnel: httpx.HTTPTransport(uds=tunnel.path, trust_env=False),
        lambda transport: transport.close(),
        connections=connections,
    )
    return AttestedTransport(pool.open())


async def open_async_transport(service: Service, *, connections: int = CONNECTIONS) -> AsyncAttestedTransport:
    """As :func:`async_http_transport`, for a service."""
    loop = asyncio.get_running_loop()
    pool = Pool(
        service,
        "http/1.1",
        lambda tunnel: httpx.AsyncHTTPTransport(uds=tunnel.path, trust_env=False),
        lambda transport: run_in(loop, transport.aclose()),
        connections=connections,
    )
    return AsyncAttestedTransport(await asyncio.to_thread(pool.open))


class AttestedTransport(httpx.BaseTransport):
    """Shares requests between the replicas of a pool.

    Attributes:
        pool: open; closed with the transport.
    """

    def __init__(self, pool: Places[httpx.BaseTransport]) -> None:
        self.pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As :meth:`httpx.BaseTransport.handle_request`.

        Raises:
            EnsconceError: the replica was refused or unreachable; httpx would only say that a connection was closed.
            UnreachableError: see :func:`check_framed`.
        """
        lease = self.pool.lease()
        try:
            response: httpx.Response = lease.seat.channel.handle_request(request)
        except BaseException as error:
            lease.release()
            _raise_true_reason(lease, error)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        try:
            check_framed(request.method, response.status_code, response.headers)
        except BaseException:
            response.stream.close()
            lease.release()
            raise
        response.stream = _Stream(response.stream, lease)
        return response

    def close(self) -> None:
        """Close every connection."""
        self.pool.close()


class AsyncAttestedTransport(httpx.AsyncBaseTransport):
    """As :class:`AttestedTransport`, for one event loop.

    Attributes:
        pool: open; closed with the transport.
    """

    def __init__(self, pool: Places[httpx.AsyncBaseTransport]) -> None:
        self.pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As :meth:`httpx.AsyncBaseTransport.handle_async_request`.

        Raises:
            EnsconceError: as :meth:`AttestedTransport.handle_request`.
        """
        lease = self.pool.lease()
        try:
            response: httpx.Response = await lease.seat.channel.handle_async_request(request)
        except BaseException as error:
            lease.release()
            _raise_true_reason(lease, error)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            check_framed(request.method, response.status_code, response.headers)
        except BaseException:
            await response.stream.aclose()
            lease.release()
            raise
        response.stream = _AsyncStream(response.stream, lease)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self.pool.channels:
            await transport.aclose()
        await asyncio.to_thread(self.pool.close)


def check_framed(method: str, status: int, fields: Collection[str]) -> None:
    """Refuse an answer that ends where the connection does (RFC 9112, section 6.3): a host could cut it short.

    TLS's own goodbye, which would tell, is between the replica and the tunnel.

    Args:
        method: of the request.
        status: of the answer.
        fields: the names of the answer's header fields, in lower case.

    Raises:
        UnreachableError: ``http.length``.
    """
    if method == "HEAD" or status in (204, 304):
        return
    if "content-length" not in fields and "transfer-encoding" not in fields:
        raise UnreachableError(
            "http.length",
            "the answer does not say where it ends, so that a host could cut it short",
            found=f"status {status} without a length",
            rule="Content-Length, or Transfer-Encoding: chunked",
            remedy="ask a server that says so, as Ensconce's and TensorFlow Serving's do",
        )


def _raise_true_reason(lease: Lease[Any], error: BaseException) -> None:
    if isinstance(error, httpx.TransportError) and lease.failure is not None:
        raise lease.failure from error


class _Stream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, lease: Lease[Any]) -> None:
        self._inner, self._lease = inner, lease

    def __iter__(self) -> Iterator[bytes]:
        yield from self._inner

    def close(self) -> None:
        self._inner.close()
        self._lease.release()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, lease: Lease[Any]) -> None:
        self._inner, self._lease = inner, lease

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._lease.release()
