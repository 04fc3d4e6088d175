"""REST, passed on request by request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import httpx

from ensconce.client.seats import Lease
from ensconce.client.transport import check_framed
from ensconce.errors import EnsconceError, UnreachableError
from ensconce.proxy.refusals import CUT, check_host, refused, response_of
from ensconce.proxy.upstream import Upstream
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import Request, Response
from ensconce.serving.http1.server import HttpServer

__all__ = ["ObserveHttp", "RestFront", "transport_through"]

_log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_LIMITS: Final = Http1Limits(body_bytes=64 * _MIB)
_LONGEST_ANSWER: Final = 256 * _MIB
# Of a connection (RFC 9110, 7.6.1), or of a body as it went over one; what is left concerns the two ends.
_NOT_PASSED_ON: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "expect",
        "content-length",
        "content-encoding",
        "accept-encoding",
        "content-type",
        "date",
    }
)
_TIME: Final = httpx.Timeout(None, connect=30.0)
# A replica closes what is idle after 60 seconds; a request that meets that would be lost.
_IDLE: Final = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=30.0)

ObserveHttp = Callable[[int, float, str, EnsconceError | None], object]
"""Told of each request: the answer's status, its seconds, the replica's id or "", and why it was not passed on."""


def transport_through(path: str) -> httpx.AsyncHTTPTransport:
    """What speaks HTTP through the tunnel whose socket is at ``path``."""
    # trust_env: a proxy from the environment would be sent the request in the clear.
    return httpx.AsyncHTTPTransport(uds=path, trust_env=False, limits=_IDLE)


class RestFront:
    """What listens for REST."""

    def __init__(self, upstream: Upstream[httpx.AsyncHTTPTransport], observe: ObserveHttp, *, check_host: bool) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            upstream: where requests go.
            observe: told of each.
            check_host: see :func:`ensconce.proxy.refusals.check_host`.
        """
        self._upstream, self._observe, self._check_host = upstream, observe, check_host
        self._host = upstream.service.server_name
        self.server = HttpServer(self._answer, refused, _LIMITS)

    async def _answer(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._check_host:
            check_host(request)
        replica, reason = "", None
        try:
            response, replica = await self._ask(request)
        except EnsconceError as error:
            response, reason = response_of(error), error
        self._observe(response.status, loop.time() - began, replica, reason)
        return response

    async def _ask(self, request: Request) -> tuple[Response, str]:
        """The answer of the first replica to which there is a connection, and its id."""
        tried: set[str] = set()
        failure: EnsconceError | None = None
        while True:
            with self._upstream.lease(tried) as lease:
                if lease.replica_id in tried:
                    raise self._upstream.reason(failure)
                try:
                    return await self._forward(lease, request), lease.replica_id
                except httpx.TransportError as error:
                    failure = lease.failure
                    if failure is None:
                        raise CUT from error
                    # The tunnel could not open a connection, so that nothing was sent.
                    tried.add(lease.replica_id)

    async def _forward(self, lease: Lease[httpx.AsyncHTTPTransport], request: Request) -> Response:
        # What a client's Connection names concerns that connection (RFC 9110, 7.6.1).
        named = {each.strip() for each in request.fields.get("connection", "").lower().split(",")}
        fields = [
            (name.encode(), value.encode("latin-1"))
            for name, value in request.fields.items()
            if name == "content-type" or (name not in _NOT_PASSED_ON and name not in named)
        ]
        outgoing = httpx.Request(
            request.method,
            httpx.URL(scheme="http", host=self._host),
            headers=[*fields, (b"host", self._host.encode()), (b"accept-encoding", b"identity")],
            content=request.body if request.body or request.method not in ("GET", "HEAD") else None,
            # As it came: httpx would refuse or rewrite what is no URL in its eyes.
            extensions={"timeout": _TIME.as_dict(), "target": request.target.encode("latin-1")},
        )
        answer = await lease.seat.channel.handle_async_request(outgoing)
        try:
            check_framed(request.method, answer)
            body = await _read(answer)
        finally:
            await answer.aclose()
        return Response(
            answer.status_code,
            body,
            answer.headers.get("content-type", ""),
            tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1"))
                for name, value in answer.headers.raw
                if name.decode("latin-1").lower() not in _NOT_PASSED_ON
            ),
        )


async def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > _LONGEST_ANSWER:
            raise UnreachableError(
                "proxy.answer", "the answer is too long", rule=f"at most {_LONGEST_ANSWER} bytes", remedy="use gRPC"
            )
    return bytes(body)
