"""One TLS connection whose other end has proved what it is, before it is sent the first byte.

The handshake shows that the server has the certificate's key (TLS 1.2 or 1.3, RFC 8446 section 4.4.3); the evidence in
the certificate shows which code has it. Who signed the certificate is not asked of any list of public authorities.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from cryptography import x509

from ensconce.addresses import Address, check_domain
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Acceptance
from ensconce.client.leaf import Accepted, judge_leaf
from ensconce.errors import EvidenceError, UnreachableError

__all__ = ["Alpn", "AttestedSocket", "connect_tls"]

Alpn = Literal["h2", "http/1.1"]


@dataclass(frozen=True, slots=True)
class AttestedSocket:
    """A connection to an accepted replica. Made by :func:`connect_tls` only.

    Attributes:
        tls: the connection; application data may flow.
        accepted: why it was accepted.
        deadline: until when that holds, by ``time.monotonic()``. Servers end their connections long before, but a
            server's clock is its host's, and a connection that never ends would never be judged again.
    """

    tls: ssl.SSLSocket
    accepted: Accepted
    deadline: float

    @property
    def acceptance(self) -> Acceptance:
        """The policy's yes."""
        return self.accepted.acceptance

    @property
    def replica_id(self) -> str:
        """Which replica it is: the first 16 hexadecimal digits of SHA-256 over its key."""
        return self.accepted.replica_id

    def close(self) -> None:
        """Tell the other side (close_notify) if it can be done without waiting, and close."""
        with contextlib.suppress(OSError, ValueError):
            self.tls.settimeout(0)
            self.tls.unwrap()
        self.tls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect_tls(
    target: Address,
    server_name: str,
    appraiser: Appraiser,
    *,
    authority: x509.Certificate | None,
    alpn: Alpn,
    timeout: float = 10.0,
) -> AttestedSocket:
    """Connect, shake hands, judge; only then is there anything to send with.

    Args:
        target: where.
        server_name: the service's DNS name, sent as SNI and asked of the certificate.
        appraiser: judges the evidence.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        alpn: the protocol to be spoken, RFC 7301; for ``h2`` the server must agree, servers of HTTP/1.1 may ignore it.
        timeout: for connection and handshake together, in seconds; fetching collateral has its own.

    Returns:
        The connection, blocking and without a timeout.

    Raises:
        InputError: ``address.domain``: ``server_name`` is no DNS name.
        UnreachableError: ``connect.name``, ``connect.tcp``, ``tls.handshake``, ``tls.alpn``; or no collateral.
        EvidenceError: the evidence or the certificate is not acceptable. Nothing was sent.
        RefusedError: the policy refuses the replica. Nothing was sent.
    """
    check_domain(server_name.lower())
    deadline = time.monotonic() + timeout
    raw = _connect(target, timeout)
    tls: ssl.SSLSocket | None = None
    try:
        raw.settimeout(max(deadline - time.monotonic(), 0.001))
        tls = _shake_hands(raw, target, server_name, alpn)
        der = tls.getpeercert(binary_form=True)
        if der is None:
            raise EvidenceError("certificate.missing", "the server showed no certificate", rule="one with evidence")
        accepted = judge_leaf(der, server_name, appraiser, authority)
        tls.settimeout(None)
    except BaseException:
        (tls or raw).close()
        raise
    return AttestedSocket(tls, accepted, time.monotonic() + accepted.valid_until - appraiser.now())


def _connect(target: Address, timeout: float) -> socket.socket:
    try:
        connection = socket.create_connection(target, timeout)
    except socket.gaierror as error:
        raise UnreachableError(
            "connect.name",
            f"there is no host {target.host}: {error.strerror}",
            remedy="check the address, or the resolver of this machine",
        ) from error
    except OSError as error:
        raise UnreachableError(
            "connect.tcp",
            f"cannot connect to {target}: {error.strerror or error}",
            remedy="check the address, and that the service is up",
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _shake_hands(raw: socket.socket, target: Address, server_name: str, alpn: Alpn) -> ssl.SSLSocket:
    try:
        tls = _context(alpn).wrap_socket(raw, server_hostname=server_name, suppress_ragged_eofs=False)
    except (OSError, ValueError) as error:
        timed_out = isinstance(error, TimeoutError)
        raise UnreachableError(
            "tls.handshake",
            f"{target} did not complete a TLS handshake",
            found="nothing in time" if timed_out else str(error)[:200],
            rule="TLS 1.2 or 1.3",
            remedy=f"check that {server_name} is the service's name and that a replica is ready: "
            "a gateway closes what it cannot pass on",
        ) from error
    selected = tls.selected_alpn_protocol()
    if selected != alpn and (alpn == "h2" or selected is not None):
        tls.close()
        raise UnreachableError(
            "tls.alpn",
            f"{target} does not speak the protocol",
            found=selected or "no choice of protocol",
            rule=f"{alpn} (ALPN, RFC 7301)",
            remedy="check the port: gRPC and REST have each their own",
        )
    return tls


def _context(alpn: Alpn) -> ssl.SSLContext:
    """A fresh context for each connection, so that no session is resumed and every handshake shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Below TLS 1.3: forward secrecy and AEAD only. Ciphers of TLS 1.3 are not affected.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # A renegotiation could bring another certificate, which nobody would have judged.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # The certificate is judged by its evidence, right after the handshake, see judge_leaf.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context
