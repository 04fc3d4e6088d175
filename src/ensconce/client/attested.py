"""One TLS connection whose other end has proved what it is, before it is sent the first byte.

The handshake shows that the server has the certificate's key (TLS 1.2 or 1.3, RFC 8446 section 4.4.3); the evidence in
the certificate shows which code has it; a fresh quote, where one is asked for, shows that this code is there now, at
the end of this very channel. Who signed the certificate is not asked of any list of public authorities.
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from cryptography import x509
from OpenSSL import SSL, crypto

from ensconce.addresses import Address, check_domain
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Acceptance
from ensconce.client.freshness import ask_fresh
from ensconce.client.leaf import Accepted, judge_leaf
from ensconce.errors import EvidenceError, UnreachableError
from ensconce.ratls.context import TLS_1_2_CIPHERS
from ensconce.ratls.freshness import FRESH
from ensconce.ratls.stream import TlsStream
from ensconce.times import since_boot, utc_text
from ensconce.trail import exhibit, held, recording, step

__all__ = ["Alpn", "AttestedSocket", "connect_tls"]

_log = logging.getLogger(__name__)

Alpn = Literal["h2", "http/1.1"]

_LONGEST_S = 24 * 3600
# tcp(7); the last in milliseconds, the others in seconds but the number of probes.
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 15),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 30_000),
)


@dataclass(frozen=True, slots=True)
class AttestedSocket:
    """A connection to an accepted replica. Made by :func:`connect_tls` only.

    Attributes:
        address: where it leads to.
        tls: the connection; application data may flow.
        accepted: why it was accepted.
        fresh: the policy's yes to a quote over the client's nonce and this channel, where one was asked for.
        deadline: until when that holds, by :func:`ensconce.times.since_boot`. Servers end their connections long
            before, but a server's clock is its host's, and a connection that never ends would never be judged again.
    """

    address: Address
    tls: TlsStream
    accepted: Accepted
    fresh: Acceptance | None
    deadline: float

    @property
    def acceptance(self) -> Acceptance:
        """The policy's yes to the certificate's evidence."""
        return self.accepted.acceptance

    @property
    def replica_id(self) -> str:
        """Which replica it is: the first 16 hexadecimal digits of SHA-256 over its key."""
        return self.accepted.replica_id

    def close(self) -> None:
        """Tell the other side (close_notify) if it can be done without waiting, and close."""
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
    freshness: bool = False,
    timeout: float = 10.0,
) -> AttestedSocket:
    """Connect, shake hands, judge; only then is there anything to send with.

    Args:
        target: where.
        server_name: the service's DNS name, sent as SNI and asked of the certificate.
        appraiser: judges the evidence.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        alpn: the protocol to be spoken, RFC 7301; for ``h2`` the server must agree, servers of HTTP/1.1 may ignore it.
        freshness: also ask for a quote over a nonce of ours and this channel, and judge that.
        timeout: for connection, handshake and fresh quote together, in seconds; fetching collateral has its own.

    Returns:
        The connection; its stream's deadline is that of the acceptance, or a day.

    Raises:
        InputError: ``address.domain``: ``server_name`` is no DNS name.
        UnreachableError: ``connect.name``, ``connect.tcp``, ``tls.handshake``, ``tls.alpn``, ``fresh.none``; or no
            collateral.
        EvidenceError: the evidence or the certificate is not acceptable, or the fresh quote is not for this channel
            (``fresh.report_data``) or of another enclave (``fresh.identity``). Nothing was sent.
        RefusedError: the policy refuses the replica. Nothing was sent.
    """
    check_domain(server_name.lower())
    deadline = time.monotonic() + timeout
    protocol = FRESH[alpn] if freshness else alpn
    with step("connection"):
        connection = _connect(target, timeout)
    stream = TlsStream(_context(protocol), connection, deadline=deadline, server_name=server_name)
    try:
        with step("tls"):
            _shake_hands(stream, target, server_name, protocol, required=freshness or alpn == "h2")
            certificate = stream.connection.get_peer_certificate()
            if certificate is None:
                raise EvidenceError("certificate.missing", "the server showed no certificate", rule="one with evidence")
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            exhibit("certificate", der)
        accepted = judge_leaf(der, server_name, appraiser, authority)
        # Collateral may have taken its time.
        stream.deadline = max(deadline, time.monotonic() + timeout / 2)
        fresh = None
        if freshness:
            with step("freshness"):
                fresh = ask_fresh(stream, accepted.acceptance, appraiser)
    except BaseException:
        stream.close()
        raise
    valid_until = accepted.valid_until if fresh is None else min(accepted.valid_until, fresh.valid_until)
    _log.info("accepted replica %s at %s until %s", accepted.replica_id, target, utc_text(valid_until))
    left = valid_until - appraiser.now()
    stream.deadline = time.monotonic() + min(left, _LONGEST_S)
    return AttestedSocket(target, stream, accepted, fresh, since_boot() + left)


def _connect(target: Address, timeout: float) -> socket.socket:
    try:
        connection = socket.create_connection(target, timeout)
        if recording():
            peer, port, *_ = connection.getpeername()
            held("connect.tcp", "TCP connection", found=str(Address(peer, port)), rule=str(target))
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
    # A host that vanished without a word is noticed within half a minute, whether it is being told something or not.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _shake_hands(stream: TlsStream, target: Address, server_name: str, protocol: str, *, required: bool) -> None:
    try:
        stream.handshake()
    except UnreachableError as error:
        raise UnreachableError(
            "tls.handshake",
            f"{target} did not complete a TLS handshake",
            found="nothing in time" if error.check == "tls.timeout" else error.found or error.problem,
            rule="TLS 1.2 or 1.3" if protocol not in FRESH.values() else "TLS 1.3",
            remedy=f"check that {server_name} is the service's name and that a replica is ready: "
            "a gateway closes what it cannot pass on",
        ) from error
    selected = stream.connection.get_alpn_proto_negotiated().decode("ascii", "replace")
    if selected != protocol and (required or selected):
        raise UnreachableError(
            "tls.alpn",
            f"{target} does not speak the protocol",
            found=selected or "no choice of protocol",
            rule=f"{protocol} (ALPN, RFC 7301)",
            remedy="update the replica: it makes no fresh quotes"
            if protocol in FRESH.values()
            else "check the port: gRPC and REST have each their own",
        )
    rule = "TLS 1.3" if protocol in FRESH.values() else "TLS 1.2 or 1.3, with forward secrecy"
    version, cipher = stream.connection.get_protocol_version_name(), stream.connection.get_cipher_name()
    held("tls.handshake", "handshake, signed with the certificate's key", found=f"{version}, {cipher}", rule=rule)
    held("tls.alpn", "protocol (ALPN)", found=selected or "no choice of protocol", rule=protocol)


def _context(protocol: str) -> SSL.Context:
    """A fresh context for each connection, so that no session is resumed and every handshake shows the certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # A channel binding by exporter needs TLS 1.3 (RFC 9266, section 3: or an extension that pyOpenSSL cannot ask for).
    context.set_min_proto_version(SSL.TLS1_3_VERSION if protocol in FRESH.values() else SSL.TLS1_2_VERSION)
    context.set_cipher_list(TLS_1_2_CIPHERS)
    # A renegotiation could bring another certificate, which nobody would have judged.
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # The certificate is judged by its evidence, right after the handshake, see judge_leaf.
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([protocol.encode()])
    return context
