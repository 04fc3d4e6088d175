"""The model server: both fronts on their ports, one certificate, one pool of workers, an orderly end."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import partial

from ensconce.addresses import Address, listen
from ensconce.serving.answers import Scheduler
from ensconce.serving.grpc import GrpcServer
from ensconce.serving.http1.limits import HttpLimits
from ensconce.serving.http1.server import HttpServer
from ensconce.serving.json_examples import answer_classify_json, answer_regress_json
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.rest import RestFront
from ensconce.serving.tls import ServingCertificate
from ensconce.serving.workers import EachAlone, Workers

__all__ = ["Limits", "ModelServer", "Ports"]


@dataclass(frozen=True)
class Ports:
    """The ports that the server listens on."""

    grpc: int
    rest: int


class ModelServer:
    """Serves a manager's models over gRPC and REST, both with TLS that ends in this process."""

    def __init__(
        self,
        manager: ModelManager,
        *,
        grpc_address: str,
        rest_address: str,
        private_key_pem: bytes,
        certificate_chain_pem: bytes,
        limits: Limits | None = None,
    ) -> None:
        """Prepare; nothing is served yet.

        Args:
            manager: knows the models; it may get more of them while the server runs.
            grpc_address: ``host:port``, the host a numeric address; port 0 takes a free one.
            rest_address: the same.
            private_key_pem: PEM, not encrypted.
            certificate_chain_pem: PEM, leaf first.
            limits: what a client may ask for.

        Raises:
            InputError: an address is wrong, or the certificate is not for this key.
        """
        self._limits = limits or Limits()
        self._manager = manager
        self._grpc_address = Address.parse(grpc_address, lowest_port=0)
        self._rest_address = Address.parse(rest_address, lowest_port=0)
        self._certificate = ServingCertificate(private_key_pem, certificate_chain_pem)
        self._scheduler: EachAlone | None = None
        self._grpc: GrpcServer | None = None
        self._rest: HttpServer | None = None

    async def start(self) -> Ports:
        """Listen and serve; on failure nothing is left open.

        Raises:
            InputError: a port is in use, or an address is not this machine's.
        """
        limits = self._limits
        listeners = [listen(self._grpc_address, "serving.port")]
        try:
            listeners.append(listen(self._rest_address, "serving.port"))
            # One inference uses all cores already; a few more threads read and write messages meanwhile.
            workers = Workers(threads=(os.cpu_count() or 1) + 2, admitted=limits.requests)
            self._scheduler = EachAlone(workers)
            self._grpc = GrpcServer(self._manager, self._scheduler, limits)
            self._rest = self._rest_server(self._scheduler, limits)
            ports = Ports(*(listener.getsockname()[1] for listener in listeners))
            await self._rest.listen(listeners[1], self._certificate.ssl_context)
            await self._grpc.listen(listeners[0], self._certificate.http2_context)
        except BaseException:
            await self.stop(0)
            for listener in listeners:
                listener.close()
            raise
        return ports

    def _rest_server(self, scheduler: Scheduler, limits: Limits) -> HttpServer:
        size = limits.message_bytes
        examples = {
            "classify": partial(answer_classify_json, self._manager, scheduler, tensor_bytes=size),
            "regress": partial(answer_regress_json, self._manager, scheduler, tensor_bytes=size),
        }
        front = RestFront(self._manager, scheduler, examples=examples)
        bounds = HttpLimits(body_bytes=limits.body_bytes, age=limits.connection_age)
        return HttpServer(front.handle, front.refused, bounds)

    def replace_certificate(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Present another certificate on new connections; to be called in the event loop's thread.

        Raises:
            InputError: it cannot be read, or is not for this key; the old one then stays.
        """
        self._certificate.replace(private_key_pem, certificate_chain_pem)

    async def stop(self, grace: float) -> None:
        """Take no new requests, answer the ones that are here for ``grace`` seconds at most, and close everything."""
        fronts = [front.stop(grace) for front in (self._grpc, self._rest) if front is not None]
        await asyncio.gather(*fronts)
        self._grpc = self._rest = None
        if self._scheduler is not None:
            await self._scheduler.close()
            self._scheduler = None
