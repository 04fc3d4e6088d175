"""Both fronts over one manager and one scheduler, on sockets that the caller has opened."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensconce.serving.batching.parameters import Bounds, Parameters
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.fresh_keys import FreshKeys
from ensconce.serving.grpc import GrpcServer
from ensconce.serving.grpc.attestation import ATTESTATION_SERVICE, attestation_methods
from ensconce.serving.grpc.call import Unary
from ensconce.serving.grpc.services import Reload
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.server import HttpServer
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.metrics import Metrics
from ensconce.serving.observing import to_all
from ensconce.serving.quotes import Quotes
from ensconce.serving.request_log import RequestLog
from ensconce.serving.rest import RestFront, RestOptions
from ensconce.serving.sealed_rest import unsealing
from ensconce.serving.sealing import Sealing
from ensconce.serving.tls import TlsContext

__all__ = ["FrontOptions", "Fronts", "Listener"]

Listener = tuple[socket.socket, TlsContext | None]
"""A listening socket (TCP or UNIX), and its TLS; None is none."""


@dataclass(frozen=True)
class FrontOptions:
    """How requests are answered.

    Attributes:
        limits: what a client may ask for.
        batching: TensorFlow Serving's parameters; without them what waits is merged, and nothing is delayed.
        merge: whether requests are merged at all without them.
        rest: how REST is served.
        reload: answers ``HandleReloadConfigRequest``, which is refused where there is none.
        metrics: counts; told at ``rest.metrics_path``, and nowhere when that is None.
        request_log: logs requests.
        check_method_names: whether Classify and Regress take only signatures that say they are for that
            (``--enable_signature_method_name_check``).
        as_content: whether Predict answers over gRPC with ``tensor_content`` instead of the fields of each type
            (``--enable_serialization_as_tensor_content``).
        services: further methods of gRPC, by service and name.
        quotes: of this enclave, for clients; there are none where this is none.
        sealing: opens requests that are sealed to this server; without, none can be.
    """

    limits: Limits = field(default_factory=Limits)
    batching: Parameters | None = None
    merge: bool = True
    rest: RestOptions = field(default_factory=RestOptions)
    reload: Reload | None = None
    metrics: Metrics | None = None
    request_log: RequestLog | None = None
    check_method_names: bool = False
    as_content: bool = False
    services: Mapping[str, Mapping[str, Unary]] = field(default_factory=dict)
    quotes: Quotes | None = None
    sealing: Sealing | None = None


class Fronts:
    """gRPC and REST for a manager's models."""

    def __init__(self, manager: ModelManager, options: FrontOptions) -> None:
        """Prepare, within the event loop that is to serve; nothing is served yet.

        Args:
            manager: knows the models; it may get more of them while it is served.
            options: see there.
        """
        limits = options.limits
        metrics = options.metrics
        self.scheduler = Scheduler(
            options.batching,
            merge=options.merge,
            bounds=Bounds.of(limits.requests),
            observe=metrics.computed if metrics is not None else None,
        )
        """Computes what is asked, and may be asked by others in the event loop."""
        check = options.check_method_names
        observers = [each.answered for each in (metrics, options.request_log) if each is not None]
        observe = to_all(observers) if observers else None
        services = dict(options.services)
        keys = FreshKeys(options.sealing, options.quotes) if options.sealing is not None else None
        if attestation := attestation_methods(options.quotes, keys):
            services[ATTESTATION_SERVICE] = attestation
        self._grpc = GrpcServer(
            manager,
            self.scheduler,
            limits,
            reload=options.reload,
            check_method_names=check,
            as_content=options.as_content,
            observe=observe,
            further=services,
            sealing=options.sealing,
        )
        front = RestFront(
            manager,
            self.scheduler,
            options.rest,
            tensor_bytes=limits.message_bytes,
            check_method_names=check,
            observe=observe,
            metrics=metrics.page if metrics is not None else None,
            quotes=options.quotes,
        )
        sealing = options.sealing
        self._rest = HttpServer(
            front.handle if sealing is None or keys is None else unsealing(sealing, keys, front.handle),
            front.refused,
            Http1Limits(body_bytes=limits.body_bytes, age=limits.connection_age),
        )
        if metrics is not None:
            metrics.gauge("ensconce_serving_requests", lambda: self.scheduler.requests)
            metrics.gauge("ensconce_serving_input_bytes", lambda: self.scheduler.input_bytes)
            metrics.gauge("ensconce_serving_connections", lambda: self._grpc.connections, entrypoint="GRPC")
            metrics.gauge("ensconce_serving_body_bytes", lambda: self._grpc.held_bytes, entrypoint="GRPC")
            metrics.gauge("ensconce_serving_connections", lambda: self._rest.connections, entrypoint="REST")
            metrics.gauge("ensconce_serving_body_bytes", lambda: self._rest.memory.used, entrypoint="REST")

    async def listen(self, grpc: Sequence[Listener], rest: Sequence[Listener]) -> None:
        """Serve on these sockets, which are closed at the end."""
        for listener, context in rest:
            await self._rest.listen(listener, context)
        for listener, context in grpc:
            await self._grpc.listen(listener, context)

    async def stop(self, grace: float) -> None:
        """Take no new requests, answer the ones that are here for ``grace`` seconds at most, and close everything."""
        await asyncio.gather(self._grpc.stop(grace), self._rest.stop(grace))
        await self.scheduler.close()
