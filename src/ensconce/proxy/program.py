"""The proxy from its first listener to its last call."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ensconce.addresses import Address, listen
from ensconce.client.loops import call_in
from ensconce.client.roster import LARGEST
from ensconce.client.seats import Seat
from ensconce.client.service import Service
from ensconce.client.tunnel import Tunnel
from ensconce.errors import EnsconceError, InputError
from ensconce.proxy.back import Backs
from ensconce.proxy.grpc import Forwarding, GrpcFront
from ensconce.proxy.link import Link
from ensconce.proxy.listening import Place, is_local, open_listener
from ensconce.proxy.metrics import Metrics
from ensconce.proxy.rest import RestFront
from ensconce.proxy.rest_link import DIALS, RestLink
from ensconce.proxy.status import status_server
from ensconce.proxy.transport import open_through
from ensconce.proxy.upstream import Upstream
from ensconce.serving.signals import told_to_end
from ensconce.serving.tls import ServingCertificate
from ensconce.tfserving.refusal import Code

__all__ = ["GRACE_S", "Proxy", "Side", "run_proxy"]

GRACE_S: Final = 20.0
"""Seconds that calls under way have when the proxy is to end."""

_HANDSHAKE_S: Final = 5.0


@dataclass(frozen=True)
class Side:
    """One protocol: where clients come, and where their calls go."""

    listen: Place
    service: Service


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """What is to run.

    Attributes:
        grpc: if gRPC is to be passed on.
        rest: if REST is.
        status: where /healthz, /readyz and /metrics are answered, if anywhere.
        certificate: with which TLS is spoken to clients; without, in the clear.
    """

    grpc: Side | None = None
    rest: Side | None = None
    status: Address | None = None
    certificate: ServingCertificate | None = None

    def __post_init__(self) -> None:
        if self.grpc is None and self.rest is None:
            raise InputError("proxy.nothing", "the proxy has nothing to pass on", remedy="give --listen HOST:PORT")


def run_proxy(proxy: Proxy, tell: Callable[[str, str], object]) -> bool:
    """Run until SIGTERM or SIGINT; what is under way then has :data:`GRACE_S` seconds.

    Args:
        proxy: what is to run.
        tell: told of each listener: what it is for, and where it is.

    Returns:
        Whether it was SIGINT.

    Raises:
        InputError: an address cannot be had, or would be in the clear beyond this machine.
    """
    return asyncio.run(_run(proxy, tell))


async def _run(proxy: Proxy, tell: Callable[[str, str], object]) -> bool:
    ended = told_to_end()
    running = Running(proxy)
    try:
        await running.start(tell)
        return await ended
    finally:
        await running.stop(GRACE_S)


class Running:
    """A proxy in an event loop."""

    def __init__(self, proxy: Proxy) -> None:
        """Prepare, within the event loop; nothing is listened at or connected to yet."""
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._backs = Backs()
        # An address that swallows what is sent there keeps a thread for as long as connecting may take.
        self._threads = ThreadPoolExecutor((1 + DIALS) * LARGEST, thread_name_prefix="proxy connects")
        self._sockets: list[Path] = []
        self._upstreams: dict[str, Upstream[Any]] = {}
        if proxy.grpc is not None:
            self._upstreams["grpc"] = self._grpc_upstream(proxy.grpc.service)
        if proxy.rest is not None:
            self._upstreams["rest"] = self._rest_upstream(proxy.rest.service)
        metrics = Metrics(self._upstreams)
        self._grpc: GrpcFront | None = None
        self._rest: RestFront | None = None
        if proxy.grpc is not None:

            def called(code: Code, seconds: float, replica: str, reason: EnsconceError | None) -> None:
                metrics.ended("grpc", code.name, seconds, replica, reason)

            self._grpc = GrpcFront(Forwarding(self._upstreams["grpc"], called))
            self._grpc.health.tell(serving=False)
        if proxy.rest is not None:

            def asked(status: int, seconds: float, replica: str, reason: EnsconceError | None) -> None:
                metrics.ended("rest", str(int(status)), seconds, replica, reason)

            check_host = isinstance(proxy.rest.listen, Address) and proxy.certificate is None
            self._rest = RestFront(self._upstreams["rest"], asked, check_host=check_host)
        self._is_stopping = False
        self._status = (
            status_server(
                self._upstreams, metrics.registry, lambda: self._is_stopping, only_local=is_local(proxy.status)
            )
            if proxy.status is not None
            else None
        )

    def _grpc_upstream(self, service: Service) -> Upstream[Link]:
        backs, patience = self._backs, service.timeout + _HANDSHAKE_S

        def make(tunnel: Tunnel) -> Link:
            return Link(functools.partial(open_through, tunnel, self._threads), backs, patience)

        upstream = Upstream(service, "h2", make, lambda link: link.close())

        upstream.watch(lambda: call_in(self._loop, self._on_replicas))
        return upstream

    def _rest_upstream(self, service: Service) -> Upstream[RestLink]:
        patience = service.timeout + _HANDSHAKE_S

        def make(tunnel: Tunnel) -> RestLink:
            return RestLink(functools.partial(open_through, tunnel, self._threads), patience)

        return Upstream(service, "http/1.1", make, lambda link: link.close())

    def _on_replicas(self) -> None:
        if self._grpc is None or self._is_stopping:
            return
        seats: list[Seat[Link]] = self._upstreams["grpc"].seats
        for seat in seats:
            # A connection that nobody uses would not tell that its replica is gone.
            seat.channel.renew()
        self._grpc.health.tell(serving=bool(seats))

    async def start(self, tell: Callable[[str, str], object]) -> None:
        """Listen everywhere, then look for replicas.

        Args:
            tell: see :func:`run_proxy`.

        Raises:
            InputError: see there.
        """
        proxy, certificate = self._proxy, self._proxy.certificate
        # All of them before anybody is answered: half a proxy is none.
        grpc = self._open(proxy.grpc)
        rest = self._open(proxy.rest)
        status = listen(proxy.status, "proxy.listen") if proxy.status is not None else None
        if grpc is not None and self._grpc is not None:
            await self._grpc.server.listen(grpc, certificate.http2_context if certificate is not None else None)
            tell("grpc", _where(grpc))
        if rest is not None and self._rest is not None:
            await self._rest.server.listen(rest, certificate.ssl_context if certificate is not None else None)
            tell("rest", _where(rest))
        if status is not None and self._status is not None:
            await self._status.listen(status, None)
            tell("status", _where(status))
        for upstream in self._upstreams.values():
            upstream.start()

    def _open(self, side: Side | None) -> socket.socket | None:
        if side is None:
            return None
        listener = open_listener(side.listen, encrypted=self._proxy.certificate is not None)
        if isinstance(side.listen, Path):
            self._sockets.append(side.listen)
        return listener

    async def stop(self, grace: float) -> None:
        """Take no more calls, let those under way end within ``grace`` seconds, and end every connection."""
        self._is_stopping = True
        for path in self._sockets:
            path.unlink(missing_ok=True)
        fronts = [each.server.stop for each in (self._rest,) if each is not None]
        fronts += [each.stop for each in (self._grpc,) if each is not None]
        await asyncio.gather(*(stop(grace) for stop in fronts))
        for upstream in self._upstreams.values():
            await asyncio.to_thread(upstream.close)
        await self._backs.stop(0)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._status is not None:
            await self._status.stop(0)


def _where(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else str(Address(name[0], name[1]))
