"""The gRPC server: its services on sockets, until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.grpc.call import Front, Streaming, Unary, UnaryCall
from ensconce.serving.grpc.health import HEALTH_SERVICE, Health
from ensconce.serving.grpc.reflection import reflection_methods, reflection_service
from ensconce.serving.grpc.sealed import unsealed
from ensconce.serving.grpc.services import Reload, serving_methods
from ensconce.serving.grpc.streaming import StreamingCall
from ensconce.serving.http2.connection import Connection
from ensconce.serving.http2.headers import Request
from ensconce.serving.http2.limits import Http2Limits
from ensconce.serving.http2.server import Http2Server
from ensconce.serving.http2.stream import Stream
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.observing import Observe
from ensconce.serving.sealing import Sealing
from ensconce.serving.tls import TlsContext

__all__ = ["GrpcServer"]

# Handing a message to a thread and back costs 40 us. As many bytes are written in 15 and read in none; only integers in
# the fields of their types, which come as varints, take milliseconds. Either way the interpreter's lock is kept, so
# that a thread buys fairness, not speed.
_SMALL_BYTES: Final = 256 * 1024
_THREADS: Final = 2
_REFLECTION: Final = ("v1", "v1alpha")


class GrpcServer:
    """Serves ``PredictionService``, ``ModelService``, health and reflection."""

    def __init__(
        self,
        manager: ModelManager,
        scheduler: Scheduler,
        limits: Limits,
        *,
        reload: Reload | None = None,
        check_method_names: bool = False,
        as_content: bool = False,
        observe: Observe | None = None,
        further: Mapping[str, Mapping[str, Unary]] | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        """Prepare, within the event loop that is to serve; nothing is served yet.

        Args:
            manager: knows the models.
            scheduler: computes predictions.
            limits: what a client may ask for.
            reload: answers ``HandleReloadConfigRequest``, which is refused where there is none.
            check_method_names: whether Classify and Regress take only signatures that say they are for that
                (``--enable_signature_method_name_check``).
            as_content: whether Predict answers with ``tensor_content`` instead of the fields of each type
                (``--enable_serialization_as_tensor_content``).
            observe: told of each call of TensorFlow Serving's own methods.
            further: methods of other services, by service and name.
            sealing: opens requests that are sealed; without, none can be.
        """
        self._sealing = sealing
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="messages")
        services = serving_methods(
            manager,
            scheduler,
            limits,
            self._threads,
            _SMALL_BYTES,
            reload,
            check_method_names=check_method_names,
            as_content=as_content,
        )
        services |= {service: dict(methods) for service, methods in (further or {}).items()}
        # The short names are what TensorFlow Serving calls its services here (model_servers/server.cc).
        self._health = Health((*services, "PredictionService", "ModelService"))
        services[HEALTH_SERVICE] = self._health.methods()
        names = (*services, *(reflection_service(version) for version in _REFLECTION))
        for version in _REFLECTION:
            services[reflection_service(version)] = reflection_methods(version, names)
        self._front = Front(
            {
                f"/{service}/{name}".encode(): method
                for service in services
                for name, method in services[service].items()
            },
            limits.message_bytes,
            _SMALL_BYTES,
            self._threads,
            observe,
            lambda name: any(name == each for each, _ in manager.models()),
        )
        self._server = Http2Server(self._accept, _http2_limits(limits))

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._server.connections

    @property
    def held_bytes(self) -> int:
        """Bytes of messages that arrive, are here or are being sent."""
        return self._server.held_bytes

    async def listen(self, listener: socket.socket, context: TlsContext | None) -> None:
        """Serve on a listening socket (TCP or UNIX), with TLS or without."""
        await self._server.listen(listener, context)

    def _accept(self, connection: Connection, stream_id: int, request: Request) -> Stream:
        method = self._front.methods.get(request.path)
        if self._sealing is not None:
            method = unsealed(self._sealing, request, method)
        if isinstance(method, Streaming):
            return StreamingCall(self._front, connection, stream_id, request, method)
        return UnaryCall(self._front, connection, stream_id, request, method)

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection."""
        self._health.tell(serving=False)
        await self._server.stop(grace)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _http2_limits(limits: Limits) -> Http2Limits:
    return Http2Limits(
        streams=limits.requests,
        connection_bytes=2 * limits.message_bytes,
        server_bytes=4 * limits.message_bytes,
        age=limits.connection_age,
        grace=limits.connection_grace,
    )
