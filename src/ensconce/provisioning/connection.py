"""One connection of the provisioning server: its places, its handshake, and the choice between protocols."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from dataclasses import dataclass

from OpenSSL import SSL

from ensconce.addresses import Address
from ensconce.errors import EnsconceError, RefusedError
from ensconce.provisioning.places import Places
from ensconce.provisioning.services import Services, too_often
from ensconce.provisioning.session import Session
from ensconce.provisioning.session_v1 import serve_v1
from ensconce.ratls.async_stream import AsyncTlsStream, first_byte
from ensconce.ratls.context import ALPN

__all__ = ["Connection", "Stages"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stages:
    """Places for the stages of connections' lives.

    Attributes:
        waiting: from accepting until there is a place for the handshake. Crowds are not left alone here, so that
            nobody else has to wait behind them in the kernel's queue, where those who come first are served first.
        handshake: from there to the end of the handshake.
        request: from there until the request has come. Who sent it has shown nothing yet but patience.
        answer: from there to the end; nobody who got here has to go again.
    """

    waiting: Places
    handshake: Places
    request: Places
    answer: Places


class Connection:
    """A connection that was accepted.

    Args:
        sock: the socket, owned from now on.
        address: the other side's.
        stages: places.
    """

    def __init__(self, sock: socket.socket, address: Address, stages: Stages) -> None:
        self.address = _network(address.host)
        self.peer = str(address)
        self.evicted = False
        self.task: asyncio.Task[None] | None = None
        self._socket = sock
        self._stages = stages
        self._place = stages.waiting

    def evict(self) -> None:
        """Give way to another connection."""
        self.evicted = True
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """Give the place back and close the socket; does nothing the second time."""
        self._place.leave(self)
        self._socket.close()

    async def run(
        self,
        *,
        context: SSL.Context,
        deadline: float,
        server_spki: bytes,
        services: Services,
        too_many: bool,
        wire_v1: bool,
    ) -> None:
        """Serve the connection; raises nothing but a cancellation.

        Args:
            context: TLS, for the protocols that are offered.
            deadline: by ``time.monotonic()``, of the handshake, if it need not wait for a place.
            server_spki: the server's leaf key, DER SubjectPublicKeyInfo.
            services: for the session.
            too_many: its address connects too often.
            wire_v1: who offers no ALPN is served by Gramine's protocol.
        """
        stream = None
        try:
            came = time.monotonic()
            await self._move(self._stages.handshake)
            deadline += time.monotonic() - came  # waiting is not the client's doing
            # Who connects and leaves, as health checks do, is no refusal worth recording.
            if not await first_byte(self._socket, deadline):
                return
            stream = AsyncTlsStream(context, self._socket, deadline=deadline)
            try:
                with services.metrics.timed("handshake"):
                    await stream.handshake()
            except EnsconceError as error:
                services.metrics.handshakes.labels("failed").inc()
                await services.refuse(error, self.peer, "none", services.noise)
            else:
                services.metrics.handshakes.labels("done").inc()
                await self._converse(stream, server_spki, services, too_many, wire_v1)
            # Also after a failed handshake: its alert tells the other side why.
            await stream.finish()
        except EnsconceError as error:
            # Strangers can have this as often as they like.
            _log.debug("connection ended", extra={"fields": {"peer": self.peer, "check": error.check}})
        except Exception as error:
            # Its message and its values stay out of the log: they might be anything.
            _log.error("connection failed inside", extra={"fields": {"peer": self.peer, "kind": type(error).__name__}})
            unforeseen = EnsconceError("provisioning.bug", "the server failed inside", found=type(error).__name__)
            await services.refuse(unforeseen, self.peer, "none", services.noise)
        finally:
            if stream is not None:
                stream.close()

    async def _converse(
        self, stream: AsyncTlsStream, server_spki: bytes, services: Services, too_many: bool, wire_v1: bool
    ) -> None:
        await self._move(self._stages.request)
        stream.deadline = time.monotonic() + services.exchange_time
        protocol = stream.connection.get_alpn_proto_negotiated()
        if protocol == ALPN:
            await Session(
                stream=stream,
                peer=self.peer,
                server_spki=server_spki,
                services=services,
                asked=lambda: self._move(self._stages.answer),
                too_many=too_many,
            ).run()
        # Who offers ALPN without ours ends in the handshake; from here on, nobody has offered any.
        elif not wire_v1:
            await services.refuse(_no_opt_in(), self.peer, "v1", services.noise)
        elif too_many:
            await services.refuse(too_often("address"), self.peer, "v1", services.noise)
        else:
            await serve_v1(stream, self.peer, services, lambda: self._move(self._stages.answer))

    async def _move(self, place: Places) -> None:
        """Take the next stage's place before giving back this one's."""
        await place.enter(self)
        self._place.leave(self)
        self._place = place


def _no_opt_in() -> RefusedError:
    return RefusedError(
        "policy.wire_v1",
        "no identity of the policy in force may use Gramine's protocol",
        found="a client that offers no ALPN, as Gramine's library does",
        rule=f"ALPN {ALPN.decode()}, or an identity with wire_v1",
        remedy="let it speak ensconce/1, or add wire_v1: {secret, form} after reading what that costs",
    )


def _network(host: str) -> str:
    """What one host has to itself: an IPv4 address, the /64 of an IPv6 address."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host
