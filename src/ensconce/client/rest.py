"""An ordinary ``httpx.Client`` to replicas that were accepted."""

from __future__ import annotations

import httpx
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.service import Service
from ensconce.client.transport import open_transport

__all__ = ["http_client"]


def http_client(
    target: Address,
    server_name: str,
    appraiser: Appraiser,
    *,
    authority: x509.Certificate | None,
    timeout: float = 10.0,
) -> httpx.Client:
    """Open a client with one connection at first, judged when this returns; later ones are judged as they are made.

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
    service = Service(
        targets=(target,), server_name=server_name, appraiser=appraiser, authority=authority, timeout=timeout
    )
    # trust_env=False: a proxy from the environment would be sent the request in the clear.
    return httpx.Client(
        transport=open_transport(service, connections=1),
        base_url=f"http://{server_name}",
        timeout=timeout,
        trust_env=False,
    )
