"""Opens what carries requests to a target, as a command line names it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final, Literal

from ensconce.addresses import Address
from ensconce.bench.targets.carrier import Carrier
from ensconce.bench.targets.dialect import Dialect, ModelName
from ensconce.bench.targets.inference import InferenceBinary, InferenceGrpc, InferenceRest
from ensconce.bench.targets.over_grpc import AttestedGrpc, PlainGrpc, TlsFiles
from ensconce.bench.targets.over_http import AttestedHttp, Http, dialler
from ensconce.bench.targets.tensorflow import TensorFlowGrpc, TensorFlowRest
from ensconce.client.channel_aio import open_async_channel
from ensconce.client.sealed_grpc_aio import open_async_sealed
from ensconce.client.service import Service
from ensconce.client.transport import open_async_transport
from ensconce.errors import InputError

__all__ = ["Protocol", "dialect_of", "open_attested", "open_plain"]

Protocol = Literal["grpc", "rest", "v2-grpc", "v2-rest", "v2-rest-binary"]

_DIALECTS: Final[dict[Protocol, Callable[[ModelName], Dialect]]] = {
    "grpc": TensorFlowGrpc,
    "rest": TensorFlowRest,
    "v2-grpc": InferenceGrpc,
    "v2-rest": InferenceRest,
    "v2-rest-binary": InferenceBinary,
}


def dialect_of(protocol: Protocol, model: ModelName) -> Dialect:
    """What is said to a model.

    Raises:
        InputError: ``bench.signature``: the protocol has no signatures.
    """
    if model.signature and protocol.startswith("v2"):
        raise InputError("bench.signature", "models have no signatures there", found=model.signature, rule=protocol)
    return _DIALECTS[protocol](model)


async def open_attested(service: Service, protocol: Protocol, connections: int, *, sealed: bool = False) -> Carrier:
    """Connections that prove themselves; one has when this returns.

    Args:
        service: whom to believe.
        protocol: what is spoken.
        connections: at least.
        sealed: through a balancer that ends TLS.

    Raises:
        InputError: ``bench.sealed``: not this protocol.
        EnsconceError: see :meth:`ensconce.client.pool.Pool.open`, :func:`ensconce.client.sealed_grpc.open_sealed`.
    """
    if sealed:
        if not protocol.endswith("grpc"):
            raise InputError("bench.sealed", "only gRPC can be sealed here", found=protocol, rule="grpc")
        return AttestedGrpc(await open_async_sealed(service, connections=connections))
    if protocol.endswith("grpc"):
        return AttestedGrpc(await open_async_channel(service, connections=connections))
    return AttestedHttp(await open_async_transport(service, connections=connections), service.server_name)


def open_plain(addresses: Sequence[Address], tls: TlsFiles | None, protocol: Protocol, connections: int) -> Carrier:
    """Connections that prove nothing, none of them opened yet.

    Raises:
        InputError: ``bench.addresses``: HTTP to several; ``bench.tls``: the files hold no certificates.
    """
    if protocol.endswith("grpc"):
        return PlainGrpc(addresses, tls, connections)
    if len(addresses) != 1:
        raise InputError("bench.addresses", "HTTP without evidence goes to one address", found=str(len(addresses)))
    [address] = addresses
    context = None if tls is None else _context(tls)
    name = tls.server_name if tls is not None else None
    return Http(dialler(address.host, address.port, context, name), name or str(address))


def _context(tls: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.authority)
        if tls.certificate is not None:
            # A password of no letters: never a prompt.
            context.load_cert_chain(tls.certificate, tls.key, "")
    except (OSError, ValueError) as error:  # ssl.SSLError is one
        raise InputError(
            "bench.tls", "the TLS files hold no certificates, or no key that fits", found=str(error)[:200]
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
