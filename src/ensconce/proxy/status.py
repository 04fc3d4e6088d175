"""/healthz, /readyz and /metrics, over plain HTTP: how the proxy is, and nothing of what passes through it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ensconce.proxy.refusals import check_host, refused
from ensconce.proxy.upstream import Upstream
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.http1.server import HttpServer
from ensconce.times import utc_text

__all__ = ["status_server"]

_LIMITS: Final = Http1Limits(connections=64, body_bytes=0, server_bytes=1024 * 1024)


def status_server(
    upstreams: Mapping[str, Upstream[object]],
    registry: CollectorRegistry,
    is_stopping: Callable[[], bool],
    *,
    only_local: bool,
) -> HttpServer:
    """A server that is to be told where to listen.

    Args:
        upstreams: by protocol.
        registry: what is counted.
        is_stopping: whether the proxy takes no more calls.
        only_local: whether it will listen on this machine only, see :func:`ensconce.proxy.refusals.check_host`. Others
            may come by any name.
    """

    def answer(request: Request) -> Response:
        if only_local:
            check_host(request)
        path = request.target.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "Only GET is answered here")
        if path == "/healthz":
            return Response(200, b"ok\n", "text/plain")
        if path == "/readyz":
            ready = not is_stopping() and all(upstream.replicas for upstream in upstreams.values())
            found = {"ready": ready, **{name: _state(upstream) for name, upstream in upstreams.items()}}
            return Response(200 if ready else 503, json.dumps(found, indent=2).encode() + b"\n")
        if path == "/metrics":
            return Response(200, generate_latest(registry), CONTENT_TYPE_LATEST)
        raise HttpError(404, "There is /healthz, /readyz and /metrics")

    return HttpServer(answer, refused, _LIMITS)


def _state(upstream: Upstream[object]) -> dict[str, object]:
    return {
        "replicas": {
            name: {"identity": accepted.acceptance.identity.name, "valid_until": utc_text(accepted.valid_until)}
            for name, accepted in sorted(upstream.replicas.items())
        },
        "failures": {where: error.fields() for where, error in upstream.failures().items()},
    }
