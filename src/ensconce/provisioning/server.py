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
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ensconce.addresses import Address, listen
from ensconce.appraisal.appraiser import Appraiser, Verify
from ensconce.appraisal.dcap import verify_quote
from ensconce.audit.log import AuditLog
from ensconce.errors import EnsconceError, InputError
from ensconce.evidence.spki import spki_of
from ensconce.keys.keystore import Keystore
from ensconce.provisioning.appraisals import Appraisals
from ensconce.provisioning.connection import Connection, Stages
from ensconce.provisioning.door import Door
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.places import Places
from ensconce.provisioning.public import Public
from ensconce.provisioning.rates import TokenBuckets
from ensconce.provisioning.recorder import Recorder
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Release
from ensconce.provisioning.services import Services
from ensconce.provisioning.status import serve_status
from ensconce.provisioning.threads import Threads
from ensconce.ratls.authority import DEFAULT_LIFETIME, CertificateAuthority
from ensconce.ratls.context import server_context

__all__ = ["ProvisioningServer"]

_log = logging.getLogger(__name__)

_LIMITS = Limits()
_OWN_LIFETIME = 30 * 24 * 3600
_CLOCK_STEP = 60  # certificates begin five minutes before they are made
_RELEASE_THREADS = 8
_WAITERS_SHARE = 8  # of the places for an answer, which nobody has to give up
_LOOK_EVERY = 1.0


@dataclass(frozen=True)
class _Identity:
    """The server's own TLS key, fresh at each start and renewed with its certificate; a context for each way in."""

    strict: SSL.Context
    with_v1: SSL.Context
    spki: bytes
    made_at: int
    renew_at: int


class ProvisioningServer:
    """Releases keys to enclaves that the policy accepts. It listens as soon as it is made, and serves when told to.

    Args:
        address: host and port to listen on; port 0 takes a free one.
        server_name: its DNS name, which enclaves have measured.
        authority: the owner's; issues the server's own certificate and those of the replicas.
        appraiser: judges evidence. May be replaced while the server runs, as :attr:`appraiser`; what is answered from
            then on is judged by the new one.
        keystore: where keys are.
        audit: the log.
        domain: the service's DNS name, the only one that replicas get certificates for.
        now: the clock, seconds since 1970.
        lifetime: of replicas' certificates, in seconds.
        limits: what strangers may cost.
        verify: verifies one quote, in a thread; :meth:`ensconce.appraisal.pool.VerifierPool.verify` uses all cores.
        status: where health, metrics and the log's head are served over HTTP, if anywhere.
        renewed: asked every second, and on :meth:`look_again`, for the appraiser to use from now on; None for the same
            as before. It runs in a thread. When it raises, the one before stays.

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
        status: Address | None = None,
        renewed: Callable[[], Appraiser | None] | None = None,
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
        self.metrics.policy_serial.set_function(lambda: self.appraiser.policy.serial)
        self._server_name = server_name
        self._authority = authority
        self._now = now
        self._limits = limits
        self._services = Services(
            in_force=lambda: self.appraiser,
            appraisals=Appraisals(verify, self.metrics, limits.connections // _WAITERS_SHARE),
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
            waiting=Places(limits.connections, 0.0, among_equals=False),
            handshake=Places(limits.connections, limits.grace),
            request=Places(limits.connections, limits.grace),
            answer=Places(limits.connections),
        )
        for stage in dataclasses.fields(Stages):
            places = getattr(self._stages, stage.name)
            self.metrics.connections.labels(stage.name).set_function(places.__len__)
        self._public = Public(
            audit, self.metrics, Threads(1, "provisioning status"), lambda: authority.check_end(now())
        )
        self._renewed = renewed
        self._identity = self._new_identity()
        self._silent = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._look = asyncio.Event()
        self._stopping = False
        self._ended = threading.Event()
        self._listener = listen(address, "provisioning.address")
        self._door = Door(self._listener, limits, self._stages, self.metrics, self._talk)
        try:
            self._status = None if status is None else listen(status, "provisioning.status")
        except InputError:
            self._listener.close()
            raise

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port = self._listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def status_port(self) -> int | None:
        """The port of the status address, if there is one."""
        return None if self._status is None else int(self._status.getsockname()[1])

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
        self._tell(self._stop)

    def look_again(self) -> None:
        """Ask for a new appraiser now rather than within a second. From any thread, or a signal handler."""
        self._tell(self._look)

    def _tell(self, event: asyncio.Event) -> None:
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

    def shutdown(self) -> None:
        """:meth:`stop`, and wait until it is done. For other threads than the one that serves, or after it served."""
        self.stop()
        if self._loop is not None:
            self._ended.wait()
        self._listener.close()
        if self._status is not None:
            self._status.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            self._stop.set()
        status = None if self._status is None else await serve_status(self._status, self._public.answer)
        tasks = [self._loop.create_task(self._door.run())]
        if self._renewed is not None:
            tasks.append(self._loop.create_task(self._follow(self._renewed)))
        ended = self._loop.create_task(self._stop.wait())
        try:
            # A task that ends by itself has failed.
            await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
            self._listener.close()
            if status is not None:
                status.close()
            await self._door.close(self._limits.closing_time)
            self._services.appraisals.close()
            self._services.threads.close()
            self._services.recorder.close()
            self._public.threads.close()
        for failure in failures:
            if not isinstance(failure, asyncio.CancelledError) and isinstance(failure, BaseException):
                raise failure

    async def _follow(self, renewed: Callable[[], Appraiser | None]) -> None:
        said = ""
        while True:
            try:
                appraiser = await self._services.threads.run(renewed)
            except Exception as error:
                # The one in force stays: a policy that cannot be believed changes nothing.
                known = isinstance(error, EnsconceError)
                problem = str(error) if known else type(error).__name__
                if problem != said:
                    said = problem
                    self.metrics.policy_refused.inc()
                    _log.error("policy.refused", extra={"fields": {"problem": problem}})
            else:
                said = ""
                if appraiser is not None:
                    self.appraiser = appraiser
                    policy = appraiser.policy
                    _log.info("policy.taken", extra={"fields": {"serial": policy.serial, "sha256": policy.sha256}})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._look.wait()
            self._look.clear()

    async def _talk(self, connection: Connection, deadline: float, too_many: bool) -> None:
        try:
            identity = self._current_identity()
        except EnsconceError as error:
            if not self._silent:
                _log.error("cannot serve anybody: %s", error)
            self._silent = True
            await self._services.refuse(error, connection.peer, "none", self._services.noise)
            return
        self._silent = False
        wire_v1 = self.appraiser.policy.wire_v1
        await connection.run(
            context=identity.with_v1 if wire_v1 else identity.strict,
            deadline=deadline,
            server_spki=identity.spki,
            services=self._services,
            too_many=too_many,
            wire_v1=wire_v1,
        )

    def _current_identity(self) -> _Identity:
        self._authority.check_end(self._now())
        # Also when the clock was ahead at the time: its certificate is not valid yet, for nobody.
        if not self._identity.made_at - _CLOCK_STEP <= self._now() < self._identity.renew_at:
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
            made_at=now,
            renew_at=min(now + _OWN_LIFETIME // 2, self._authority.end),
        )
