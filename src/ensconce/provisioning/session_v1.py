"""One connection of wire v1, from its request to its secret: Gramine's own protocol, for programs as they are.

The protocol has no nonce, no name for a key and no word for no. So whatever goes wrong is recorded and the connection
closed; and who the client is, and which secret it gets, is said by its certificate and the policy alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EnsconceError
from ensconce.provisioning.frames import AsyncStream
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Prepared
from ensconce.provisioning.release_v1 import prepare_v1
from ensconce.provisioning.services import Services, too_often
from ensconce.provisioning.wire_v1 import REQUEST, check_request
from ensconce.ratls.context import check_full_handshake, peer_certificate
from ensconce.ratls.gramine import read_gramine_client

__all__ = ["serve_v1"]


async def serve_v1(stream: AsyncStream, peer: str, services: Services, asked: Callable[[], Awaitable[None]]) -> None:
    """Serve a connection whose handshake is done and agreed on no ALPN. Refusals are recorded, never raised.

    Args:
        stream: the connection, whose deadline is that of the whole exchange; ending it is the caller's.
        peer: the other side's address, for the log.
        services: the server's.
        asked: awaited once the request has come.

    Raises:
        UnreachableError: the client left before it had its secret, whose release is recorded by then.
    """
    prepared = await _prepare(stream, peer, services, asked)
    if prepared is not None:
        services.metrics.releases.labels("v1").inc()
        await stream.write(prepared.answer)


async def _prepare(
    stream: AsyncStream, peer: str, services: Services, asked: Callable[[], Awaitable[None]]
) -> Prepared | None:
    """What the client gets, recorded already; None when it gets nothing, which is recorded as well."""
    acceptance: Acceptance | None = None
    budget: RefusalBudget | None = services.noise
    try:
        certificate = await _ask(stream)
        await asked()
        budget = services.doubts
        client = read_gramine_client(certificate, services.in_force().now())
        acceptance = await services.appraise(services.in_force(), client.quote)
        budget = services.hurry
        if not services.identities.take(acceptance.identity.name):
            raise too_often("identity")
        budget = None
        prepared = await services.answer(lambda now: prepare_v1(services.release, client, now, peer), acceptance)
    except EnsconceError as error:
        await services.refuse(error, peer, "v1", budget, acceptance)
        return None
    return prepared


async def _ask(stream: AsyncStream) -> bytes:
    """The certificate of a client that has sent the request and nothing else."""
    check_full_handshake(stream.connection)
    certificate = peer_certificate(stream.connection)
    check_request(await stream.read(len(REQUEST)), stream.connection.pending())
    return certificate
