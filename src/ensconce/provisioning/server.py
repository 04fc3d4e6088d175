"""The provisioning server: listens, bounds what strangers can cost it, and gives each connection a session.

One event loop. What takes time runs elsewhere: appraisal, keystore and log in threads and processes. A connection has a
place for each stage of its life, and there are only so many places; see :mod:`ensconce.provisioning.places` for who has
to go when all are taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ensconce.addresses import Address, listen
from ensconce.appraisal.appraiser import Appraiser, Verify
from ensconce.appraisal.dcap import verify_quote
from ensconce.audit.log import AuditLog
from ensconce.errors import InputError
from ensconce.evidence.spki import spki_of
from ensconce.keys.keystore import Keystore
from ensconce.provisioning.appraisals import Appraisals
from ensconce.provisioning.connection import Connection, Stages
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.places import Places
from ensconce.provisioning.rates import TokenBuckets
from ensconce.provisioning.recorder import Recorder
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Release
from ensconce.provisioning.services import Services
from ensconce.provisioning.threads import Threads
from ensconce.ratls.authority import DEFAULT_LIFETIME, CertificateAuthority
from ensconce.ratls.context import server_context

__all__ = ["Limits", "ProvisioningServer"]

_log = logging.getLogger(__name__)

_LIMITS = Limits()
_OWN_LIFETIME = 30 * 24 * 3600
_RELEASE_THREADS = 8
_ACCEPTED_AT_ONCE = 16


@dataclass(frozen=True)
class _Identity:
    """The server's own TLS key, fresh at each start and renewed with its certificate; a context for each way in."""

    strict: SSL.Context
    with_v1: SSL.Context
    spki: bytes
    renew_at: int


class ProvisioningServer:
    """Releases keys to enclaves that the policy accepts. It listens as soon as it is made, and serves when told to.

    Args:
        address: host and port to listen on; port 0 takes a free one.
        server_name: its DNS name, which enclaves have measured.
        authority: the owner's; issues the server's own certificate and those of the replicas.
        appraiser: judges evidence. May be replaced while the server runs, as :attr:`appraiser`; connections that have
            begun keep the one that they began with.
        keystore: where keys are.
        audit: the log.
        domain: the service's DNS name, the only one that replicas get certificates for.
        now: the clock, seconds since 1970.
        lifetime: of replicas' certificates, in seconds.
        limits: what strangers may cost.
        verify: verifies one quote, in a thread; :meth:`ensconce.appraisal.pool.VerifierPool.verify` uses all cores.

    Raises:
        InputError: the address is taken or not this machine's, or both names are the same.
    """

    def __init__(
        self,
        address: Address,
        *,
        server_name: str,
        authority: CertificateAuthority,
        appraiser: Appraiser,
        keystore: Keystore,
        audit: AuditLog,
        domain: str,
        now: Callable[[], int],
        lifetime: int = DEFAULT_LIFETIME,
        limits: Limits = _LIMITS,
        verify: Verify = verify_quote,
    ) -> None:
        if server_name.lower() == domain.lower():
            raise InputError(
                "provisioning.server_name",
                "the provisioning server and the service have the same name",
                found=server_name,
                rule="two names: otherwise a replica's certificate would make it a provisioning server",
                remedy="choose another provisioning.server_name in the deployment file",
            )
        self.appraiser = appraiser
        self.metrics = Metrics()
        self._server_name = server_name
        self._authority = authority
        self._now = now
        self._limits = limits
        self._services = Services(
            appraiser=appraiser,
            appraisals=Appraisals(verify, self.metrics),
            release=Release(keystore, authority, domain, now, lifetime),
            threads=Threads(_RELEASE_THREADS, "provisioning release"),
            recorder=Recorder(audit),
            noise=RefusalBudget(),
            doubts=RefusalBudget(),
            hurry=RefusalBudget(),
            identities=TokenBuckets(limits.identity_rate, limits.identity_burst),
            metrics=self.metrics,
            exchange_time=limits.exchange_time,
        )
        self._stages = Stages(
            handshake=Places(limits.connections, limits.grace),
            request=Places(limits.connections, limits.grace),
            answer=Places(limits.connections),
        )
        self._askers = TokenBuckets(limits.address_rate, limits.address_burst)
        # Whoever goes on although it was told to wait is not even shaken hands with.
        self._knockers = TokenBuckets(2 * limits.address_rate, 2 * limits.address_burst)
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._by_address: dict[str, int] = {}
        self._identity = self._new_identity()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._stopping = False
        self._ended = threading.Event()
        self._listener = listen(address, "provisioning.address")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port = self._listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    def serve_forever(self) -> None:
        """Serve until :meth:`stop` or :meth:`shutdown` is called, from any thread or a signal handler."""
        try:
            asyncio.run(self._serve())
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Have :meth:`serve_forever` stop listening, let connections end for a while, cut them, and return.

        Does not wait, and may be called from any thread, from a signal handler, and twice.
        """
        self._stopping = True
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._stop.set)

    def shutdown(self) -> None:
        """:meth:`stop`, and wait until it is done. For other threads than the one that serves, or after it served."""
        self.stop()
        if self._loop is not None:
            self._ended.wait()
        self._listener.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            self._stop.set()
        accepting = self._loop.create_task(self._accept())
        try:
            await self._stop.wait()
        finally:
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            self._listener.close()
            await self._end_connections()
            self._services.appraisals.close()
            self._services.threads.close()
            self._services.recorder.close()

    async def _end_connections(self) -> None:
        tasks = set(self._connections.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.closing_time)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self._limits.closing_time)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        accepted = 0
        while True:
            try:
                sock, address = await loop.sock_accept(self._listener)
            except (ConnectionAbortedError, InterruptedError):
                continue
            except OSError as error:
                # Out of descriptors or memory: connections in progress will free some.
                _log.error("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(0.2)
                continue
            accepted += 1
            if accepted % _ACCEPTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # a flood of newcomers must not hold up those who are here
            try:
                await self._admit(sock, Address(address[0], address[1]))
            except BaseException:
                sock.close()
                raise

    async def _admit(self, sock: socket.socket, address: Address) -> None:
        connection = Connection(sock, address, self._stages)
        mine = self._by_address.get(connection.address, 0)
        crowded = mine >= self._limits.connections_per_address
        if crowded and not self._stages.handshake.evict_one_of(connection.address):
            self.metrics.turned_away.labels("address").inc()
            sock.close()
            return
        if not self._knockers.take(connection.address):
            self.metrics.turned_away.labels("rate").inc()
            sock.close()
            return
        await self._stages.handshake.enter(connection)
        deadline = time.monotonic() + self._limits.handshake_time
        self._by_address[connection.address] = self._by_address.get(connection.address, 0) + 1
        task = asyncio.get_running_loop().create_task(self._run(connection, deadline))
        self._connections[connection] = task
        connection.task = task
        # Also for a task that is cancelled before its first step.
        task.add_done_callback(lambda _: self._forget(connection))

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection]
        left = self._by_address[connection.address] - 1
        if left:
            self._by_address[connection.address] = left
        else:
            del self._by_address[connection.address]
        connection.close()
        if connection.evicted:
            self.metrics.turned_away.labels("place").inc()

    async def _run(self, connection: Connection, deadline: float) -> None:
        identity = self._current_identity()
        appraiser = self.appraiser
        policy = getattr(appraiser, "policy", None)
        wire_v1 = bool(policy is not None and policy.wire_v1)
        await connection.run(
            context=identity.with_v1 if wire_v1 else identity.strict,
            deadline=deadline,
            server_spki=identity.spki,
            services=dataclasses.replace(self._services, appraiser=appraiser),
            too_many=not self._askers.take(connection.address),
            wire_v1=wire_v1,
        )

    def _current_identity(self) -> _Identity:
        if self._now() >= self._identity.renew_at:
            self._identity = self._new_identity()
        return self._identity

    def _new_identity(self) -> _Identity:
        now = self._now()
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._authority.issue_server(key.public_key(), self._server_name, now=now, lifetime=_OWN_LIFETIME)
        certificate = x509.load_pem_x509_certificate(chain)
        return _Identity(
            strict=server_context(key, certificate),
            with_v1=server_context(key, certificate, wire_v1=True),
            spki=spki_of(key.public_key()),
            renew_at=now + _OWN_LIFETIME // 2,
        )
