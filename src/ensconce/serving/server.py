"""The model server of a replica: both fronts on their ports, with one certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ensconce.addresses import Address, listen
from ensconce.serving.fronts import FrontOptions, Fronts
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.tls import ServingCertificate

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
        options: FrontOptions | None = None,
    ) -> None:
        """Prepare; nothing is served yet.

        Args:
            manager: knows the models; it may get more of them while the server runs.
            grpc_address: ``host:port``, the host a numeric address; port 0 takes a free one.
            rest_address: the same.
            private_key_pem: PEM, not encrypted.
            certificate_chain_pem: PEM, leaf first.
            limits: what a client may ask for, whatever the options say of it.
            options: how requests are answered.

        Raises:
            InputError: an address is wrong, or the certificate is not for this key.
        """
        options = options or FrontOptions()
        self._options = replace(options, limits=limits or options.limits)
        self._manager = manager
        self._grpc_address = Address.parse(grpc_address, lowest_port=0)
        self._rest_address = Address.parse(rest_address, lowest_port=0)
        self._certificate = ServingCertificate(private_key_pem, certificate_chain_pem, quotes=self._options.quotes)
        if self._options.sealing is not None:
            self._options.sealing.present(private_key_pem, certificate_chain_pem)
        self._fronts: Fronts | None = None

    async def start(self) -> Ports:
        """Listen and serve; on failure nothing is left open.

        Raises:
            InputError: a port is in use, or an address is not this machine's.
        """
        listeners = [listen(self._grpc_address, "serving.port")]
        try:
            listeners.append(listen(self._rest_address, "serving.port"))
            ports = Ports(*(listener.getsockname()[1] for listener in listeners))
            self._fronts = Fronts(self._manager, self._options)
            grpc, rest = listeners
            await self._fronts.listen(
                [(grpc, self._certificate.http2_context)], [(rest, self._certificate.ssl_context)]
            )
        except BaseException:
            await self.stop(0)
            for listener in listeners:
                listener.close()
            raise
        return ports

    def replace_certificate(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Present another certificate on new connections, and another sealing key; to be called in the loop's thread.

        Raises:
            InputError: it cannot be read, or is not for this key; the old one then stays.
        """
        self._certificate.replace(private_key_pem, certificate_chain_pem)
        if self._options.sealing is not None:
            self._options.sealing.present(private_key_pem, certificate_chain_pem)

    async def stop(self, grace: float) -> None:
        """Take no new requests, answer the ones that are here for ``grace`` seconds at most, and close everything."""
        if self._fronts is not None:
            await self._fronts.stop(grace)
            self._fronts = None
        if self._options.quotes is not None:
            self._options.quotes.close()
