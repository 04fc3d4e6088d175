"""An ordinary ``httpx.Client`` to replicas that were accepted."""

from __future__ import annotations

import functools

import httpx
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.attested import connect_tls
from ensconce.client.tunnel import Tunnel

__all__ = ["AttestedTransport", "http_client"]


class AttestedTransport(httpx.BaseTransport):
    """Carries every request through a tunnel, whatever host its URL names.

    Args:
        tunnel: started; closed with the transport.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self._inner = httpx.HTTPTransport(uds=tunnel.path, trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As :meth:`httpx.BaseTransport.handle_request`.

        Raises:
            EnsconceError: the replica was refused or unreachable; httpx would only say that a connection was closed.
        """
        try:
            return self._inner.handle_request(request)
        except httpx.TransportError as error:
            if self.tunnel.failure is not None:
                raise self.tunnel.failure from error
            raise

    def close(self) -> None:
        """Close every connection and the tunnel."""
        self._inner.close()
        self.tunnel.close()


def http_client(
    target: Address,
    server_name: str,
    appraiser: Appraiser,
    *,
    authority: x509.Certificate | None,
    timeout: float = 10.0,
) -> httpx.Client:
    """Open a client; its first connection has been judged when this returns, later ones are judged as they are made.

    Requests go to paths: ``client.post("/v1/models/digits:predict", json=...)``. Its URLs say ``http`` because TLS is
    below it.

    Args:
        target: where the service's REST API is reached.
        server_name: the service's DNS name.
        appraiser: judges the replicas.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        timeout: for connecting, and for each wait for the server, in seconds.

    Raises:
        UnreachableError, EvidenceError, RefusedError: see :func:`ensconce.client.attested.connect_tls`.
    """
    tunnel = Tunnel(
        functools.partial(
            connect_tls, target, server_name, appraiser, authority=authority, alpn="http/1.1", timeout=timeout
        )
    )
    tunnel.start()
    # trust_env=False: a proxy from the environment would be sent the request in the clear.
    return httpx.Client(
        transport=AttestedTransport(tunnel), base_url=f"http://{server_name}", timeout=timeout, trust_env=False
    )
