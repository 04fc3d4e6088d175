"""REST, passed on request by request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import h11

from ensconce.client.seats import Lease
from ensconce.errors import EnsconceError
from ensconce.proxy.refusals import check_host, refused, response_of
from ensconce.proxy.rest_link import RestLink
from ensconce.proxy.upstream import Upstream
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import Request, Response
from ensconce.serving.http1.server import HttpServer

__all__ = ["ObserveHttp", "RestFront"]

_log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_LIMITS: Final = Http1Limits(body_bytes=64 * _MIB)
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
ObserveHttp = Callable[[int, float, str, EnsconceError | None], object]
"""Told of each request: the answer's status, its seconds, the replica's id or "", and why it was not passed on."""


class RestFront:
    """What listens for REST."""

    def __init__(self, upstream: Upstream[RestLink], observe: ObserveHttp, *, check_host: bool) -> None:
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
                except ConnectionError:
                    failure = lease.failure
                    tried.add(lease.replica_id)

    async def _forward(self, lease: Lease[RestLink], request: Request) -> Response:
        # What a client's Connection names concerns that connection (RFC 9110, 7.6.1).
        named = {each.strip() for each in request.fields.get("connection", "").lower().split(",")}
        fields = [
            (name.encode(), value.encode("latin-1"))
            for name, value in request.fields.items()
            if name == "content-type" or (name not in _NOT_PASSED_ON and name not in named)
        ]
        fields += [(b"host", self._host.encode()), (b"accept-encoding", b"identity")]
        if request.body or request.method not in ("GET", "HEAD"):
            fields.append((b"content-length", b"%d" % len(request.body)))
        outgoing = h11.Request(method=request.method, target=request.target.encode("latin-1"), headers=fields)
        answer = await lease.seat.channel.ask(outgoing, request.body, self.server.memory)
        return Response(
            answer.status,
            answer.body,
            next((value for name, value in answer.fields if name == "content-type"), ""),
            tuple((name, value) for name, value in answer.fields if name not in _NOT_PASSED_ON),
        )
