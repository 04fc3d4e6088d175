"""TLS contexts of wire v2, both sides: TLS 1.3 and nothing else, ALPN ``ensconce/1``, no resumption, no early data.

Reference: ``docs/reference/wire-v2.md``, section "TLS". pyOpenSSL, because attestation needs what Python's own ``ssl``
keeps to itself: the exporter, the peer's self-signed certificate, and a say in its verification.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import VerificationError
from OpenSSL import SSL, crypto

from ensconce.errors import EvidenceError, UnreachableError
from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import EXPORTER_SIZE
from ensconce.ratls.trust import verify_server

__all__ = [
    "ALPN",
    "check_channel",
    "check_server",
    "client_context",
    "exporter",
    "impostor",
    "peer_spki",
    "refused_certificate",
    "server_context",
]

ALPN = b"ensconce/1"
"""Protocol id of wire v2; a later version gets another."""

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
"""RFC 9266, section 2."""

_SELF_SIGNED_LEAF = 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT


def server_context(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> SSL.Context:
    """The provisioning server's context: it demands a client certificate, which must be a bare self-signed one.

    Args:
        key: the server's key.
        certificate: its certificate under the owner's authority.
    """
    context = _context()
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.check_privatekey()
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_bare_key)
    context.set_alpn_select_callback(_select)
    return context


def client_context(
    key: ec.EllipticCurvePrivateKey, container: x509.Certificate, authority: x509.Certificate
) -> SSL.Context:
    """The enclave's context: it presents its fresh key and trusts the owner's authority alone.

    The server's name is checked by :func:`check_server` once the handshake is done, before a byte is sent or believed.

    Args:
        key: the enclave's key.
        container: the self-signed certificate around it.
        authority: the owner's, see :func:`ensconce.ratls.trust.load_authority`.
    """
    context = _context()
    context.use_certificate(container)
    context.use_privatekey(key)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(authority))
    context.set_verify(SSL.VERIFY_PEER, _note_issuer)
    context.set_alpn_protos([ALPN])
    return context


def refused_certificate(connection: SSL.Connection) -> str | None:
    """What OpenSSL refused in the server's certificate during a failed handshake, if that is why it failed."""
    refused = connection.get_app_data()
    if refused is None:
        return None
    certificate, error = refused
    try:
        issuer = certificate.to_cryptography().issuer.rfc4514_string()
    except Exception:  # cryptography has half a dozen kinds for DER that is not right
        issuer = "a name that cannot be read"
    return f"issued by {issuer[:100]}, OpenSSL error {error}"


def check_server(connection: SSL.Connection, authority: x509.Certificate, server_name: str, now: dt.datetime) -> None:
    """Check the server's certificate after a handshake: under this authority, for this name, for servers, today.

    Raises:
        EvidenceError: ``provisioning.server_certificate``.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise impostor("it has no certificate", server_name)
    try:
        verify_server(certificate, [], authority=authority, name=server_name, now=now)
    except VerificationError as error:
        raise impostor(str(error)[:200], server_name) from None


def check_channel(connection: SSL.Connection) -> None:
    """Check what a finished handshake has agreed on: TLS 1.3, ALPN ``ensconce/1``, a full handshake.

    Raises:
        UnreachableError: ``tls.version``, ``tls.alpn`` or ``tls.resumed``.
    """
    if connection.get_protocol_version() != SSL.TLS1_3_VERSION:
        raise UnreachableError(
            "tls.version",
            "the connection is not TLS 1.3",
            found=connection.get_protocol_version_name(),
            rule="TLS 1.3",
            remedy="update the other side",
        )
    if (found := connection.get_alpn_proto_negotiated()) != ALPN:
        raise UnreachableError(
            "tls.alpn",
            "the other side does not speak this protocol",
            found=found.decode("ascii", "replace") or "none",
            rule=f"ALPN {ALPN.decode()}",
            remedy="check that the address is a provisioning server's, and its version",
        )
    # A resumed session would carry over an identity from an earlier handshake.
    if SSL._lib.SSL_session_reused(connection._ssl):  # type: ignore[attr-defined]
        raise UnreachableError("tls.resumed", "the connection resumes an earlier session", rule="a full handshake")


def exporter(connection: SSL.Connection) -> bytes:
    """The channel binding ``tls-exporter`` of RFC 9266: 32 bytes, zero-length context."""
    return connection.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b"")


def peer_spki(connection: SSL.Connection) -> bytes:
    """The peer's leaf key, DER SubjectPublicKeyInfo.

    Raises:
        UnreachableError: ``tls.certificate``: it has no certificate.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise UnreachableError("tls.certificate", "the other side has no certificate")
    return spki_of(certificate.public_key())


def impostor(found: str, server_name: str) -> EvidenceError:
    """The error about a provisioning server that is not the owner's."""
    return EvidenceError(
        "provisioning.server_certificate",
        "this is not the owner's provisioning server",
        found=found,
        rule=f"a certificate for {server_name} under the owner's authority, which is measured into the enclave",
        remedy="somebody else answers at this address; check it, and provisioning.server_name in the deployment file",
    )


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    # Without a cache, what OpenSSL still sends as tickets (32 random bytes) opens nothing.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _accept_bare_key(_connection: SSL.Connection, _certificate: crypto.X509, error: int, depth: int, _ok: int) -> bool:
    """Accept a lone self-signed certificate, whose signature and key are judged later; refuse everything else."""
    return depth == 0 and error in (0, _SELF_SIGNED_LEAF)


def _note_issuer(connection: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, ok: int) -> bool:
    """OpenSSL's own verdict stands; what it refused is kept for :func:`refused_certificate`'s message."""
    if not ok:
        connection.set_app_data((certificate, error))
    return bool(ok)


def _select(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # Never raises: a shared context would hand the exception to whichever thread comes next.
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
