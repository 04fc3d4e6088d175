"""The provisioning server: listens, bounds what strangers can cost it, and gives each connection a session.

One thread for each connection: appraisal is native code, and the number of connections is bounded. A connection that
is slow, silent or greedy costs its own slot until its deadline, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ensconce.addresses import Address, listen
from ensconce.appraisal.appraiser import Appraiser
from ensconce.audit.log import AuditLog
from ensconce.errors import InputError
from ensconce.evidence.spki import spki_of
from ensconce.keys.keystore import Keystore
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Release
from ensconce.provisioning.session import Session
from ensconce.ratls.authority import DEFAULT_LIFETIME, CertificateAuthority
from ensconce.ratls.context import server_context
from ensconce.ratls.stream import TlsStream

__all__ = ["Limits", "ProvisioningServer"]

_log = logging.getLogger(__name__)

_OWN_LIFETIME = 30 * 24 * 3600


@dataclass(frozen=True)
class Limits:
    """What strangers may cost.

    Attributes:
        connections: at a time; more wait in the kernel's queue.
        handshake_time: seconds from the first byte's wait to the end of the handshake.
        exchange_time: seconds for everything after the handshake.
        closing_time: seconds that a stopping server leaves to its connections.
    """

    connections: int = 64
    handshake_time: float = 10.0
    exchange_time: float = 30.0
    closing_time: float = 2.0


@dataclass(frozen=True)
class _Identity:
    """The server's own TLS key, fresh at each start and renewed with its certificate."""

    context: SSL.Context
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
        limits: Limits = Limits(),
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
        self._server_name = server_name
        self._authority = authority
        self._now = now
        self._limits = limits
        self._release = Release(keystore, authority, audit, domain, now, lifetime)
        self._noise, self._doubts = RefusalBudget(), RefusalBudget()
        self._identity = self._new_identity()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._connections_lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(limits.connections)
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._listener = listen(address, "provisioning.address")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port = self._listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    def serve_forever(self) -> None:
        """Serve until :meth:`shutdown` is called, from another thread or after an exception in this one."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while not self._stopping.is_set():
            # Waiting for a slot leaves newcomers in the kernel's queue, which is bounded as well.
            if not self._slots.acquire(timeout=0.5):
                continue
            accepted = None
            try:
                poll.poll()
                if not self._stopping.is_set():
                    accepted = self._accept()
            finally:
                if accepted is None:
                    self._slots.release()
            if accepted is not None:
                self._start(*accepted)

    def shutdown(self) -> None:
        """Stop listening, let connections end for a while, then cut them. Safe to call twice, and from any thread."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake_writer.send(b"x")
        # Closing alone would leave it listening for as long as another thread polls it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._join()
        with self._connections_lock:
            for sock in self._connections.values():
                # Whatever its thread is waiting for fails now.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._join()

    def _join(self) -> None:
        deadline = time.monotonic() + self._limits.closing_time
        with self._connections_lock:
            threads = list(self._connections)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> tuple[socket.socket, str] | None:
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return None
        except OSError as error:
            if not self._stopping.is_set():
                # Out of descriptors or memory: connections in progress will free some.
                _log.error("cannot accept a connection: %s", error.strerror)
                self._stopping.wait(0.2)
            return None
        return sock, f"{address[0]}:{address[1]}"

    def _start(self, sock: socket.socket, peer: str) -> None:
        thread = threading.Thread(target=self._serve, args=(sock, peer), name=f"provisioning {peer}", daemon=True)
        with self._connections_lock:
            self._connections[thread] = sock
        try:
            thread.start()
        except RuntimeError:
            _log.error("cannot start a thread for a connection")
            self._end(thread, sock)

    def _end(self, thread: threading.Thread, sock: socket.socket) -> None:
        with self._connections_lock:
            del self._connections[thread]
        sock.close()
        self._slots.release()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            deadline = time.monotonic() + self._limits.handshake_time
            if not _speaks(sock, deadline):
                return
            identity = self._current_identity()
            Session(
                stream=TlsStream(identity.context, sock, deadline=deadline),
                peer=peer,
                server_spki=identity.spki,
                appraiser=self.appraiser,
                release=self._release,
                noise=self._noise,
                doubts=self._doubts,
                exchange_time=self._limits.exchange_time,
            ).run()
        except Exception as error:
            _log.error("provisioning connection of %s failed: %s", peer, type(error).__name__)
        finally:
            self._end(threading.current_thread(), sock)

    def _current_identity(self) -> _Identity:
        if self._now() >= self._identity.renew_at:
            # Two threads may both renew: the later one wins, and each connection uses one identity throughout.
            self._identity = self._new_identity()
        return self._identity

    def _new_identity(self) -> _Identity:
        now = self._now()
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._authority.issue_server(key.public_key(), self._server_name, now=now, lifetime=_OWN_LIFETIME)
        context = server_context(key, x509.load_pem_x509_certificate(chain))
        return _Identity(context, spki_of(key.public_key()), now + _OWN_LIFETIME // 2)


def _speaks(sock: socket.socket, deadline: float) -> bool:
    """Wait for the first byte. Who connects and leaves, as health checks do, is no refusal worth recording."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        return False
    with contextlib.suppress(OSError):
        return bool(sock.recv(1, socket.MSG_PEEK))
    return False
