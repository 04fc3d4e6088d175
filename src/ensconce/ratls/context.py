"""TLS contexts of wire v2, both sides: TLS 1.3 and nothing else, ALPN ``ensconce/1``, no resumption, no early data.

A server that also speaks wire v1, Gramine's, takes TLS 1.2 too, from clients that offer no ALPN.
Reference: ``docs/reference/wire-v2.md`` and ``wire-v1.md``, sections "TLS". pyOpenSSL, because attestation needs what
Python's own ``ssl`` keeps to itself: the exporter, the peer's self-signed certificate, and a say in its verification.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import VerificationError
from OpenSSL import SSL, crypto

from ensconce.errors import EnsconceError, EvidenceError, UnreachableError
from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import EXPORTER_SIZE
from ensconce.ratls.trust import verify_server

__all__ = [
    "ALPN",
    "TLS_1_2_CIPHERS",
    "check_channel",
    "check_full_handshake",
    "check_server",
    "client_context",
    "exporter",
    "forbid_tickets",
    "impostor",
    "peer_certificate",
    "peer_spki",
    "refused_certificate",
    "restrict_groups",
    "server_context",
]

ALPN = b"ensconce/1"
"""Protocol id of wire v2; a later version gets another."""

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
"""RFC 9266, section 2."""

_SELF_SIGNED_LEAF = 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
_DATES = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

TLS_1_2_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Below TLS 1.3: forward secrecy and AEAD only."""

# The client chooses what an exchange of keys costs the server: over a finite field six times as much as over these.
# OpenSSL before 3.5 knows only the last three.
_GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")

# Checking a signature takes as long as the exponent is: 65537 in all keys that are made, and OpenSSL takes 3,072 bits.
_MAX_RSA_BITS = 4096
_MAX_RSA_EXPONENT = 2**32


def server_context(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, wire_v1: bool = False
) -> SSL.Context:
    """The provisioning server's context: it demands a client certificate, which must be a bare self-signed one.

    Who offers ALPN without ``ensconce/1`` gets an alert, and the handshake raises ``tls.alpn``; who offers none, as
    Gramine's clients, gets through it. All handshakes have to happen in one thread.

    Args:
        key: the server's key.
        certificate: its certificate under the owner's authority.
        wire_v1: take TLS 1.2 as well, for Gramine's clients.
    """
    context = _context()
    if wire_v1:
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(TLS_1_2_CIPHERS)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.check_privatekey()
    restrict_groups(context)
    context.set_tlsext_servername_callback(forbid_tickets)
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
    context.set_options(SSL.OP_NO_TICKET)
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
    check_full_handshake(connection)


def check_full_handshake(connection: SSL.Connection) -> None:
    """Check that a finished handshake was a full one: a resumed session carries over an identity from an earlier one.

    Raises:
        UnreachableError: ``tls.resumed``.
    """
    if SSL._lib.SSL_session_reused(connection._ssl):  # type: ignore[attr-defined]
        raise UnreachableError("tls.resumed", "the connection resumes an earlier session", rule="a full handshake")


def exporter(connection: SSL.Connection) -> bytes:
    """The channel binding ``tls-exporter`` of RFC 9266: 32 bytes, zero-length context."""
    return connection.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b"")


def peer_certificate(connection: SSL.Connection) -> bytes:
    """The certificate of the client, DER, at the server's end after a handshake.

    Raises:
        EvidenceError: ``ratls.container``: it presents none, or more than one.
    """
    certificate = connection.get_peer_certificate()
    # At the server's end the chain is what came beside the leaf.
    if certificate is None or connection.get_peer_cert_chain():
        raise EvidenceError("ratls.container", "the client presents no certificate, or more than one")
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def peer_spki(connection: SSL.Connection) -> bytes:
    """The peer's leaf key, DER SubjectPublicKeyInfo.

    Raises:
        UnreachableError: ``tls.certificate``: it has no certificate.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise UnreachableError("tls.certificate", "the other side has no certificate")
    return spki_of(certificate.public_key())


def forbid_tickets(connection: SSL.Connection) -> None:
    """Send no NewSessionTicket: Gramine 1.8 takes one for a failure, and nothing may be resumed anyway.

    Whoever forbids them from the beginning still gets two from OpenSSL under TLS 1.3. Only when they are forbidden
    between the ClientHello and the answer, which is when this callback is called with or without a server name, does
    OpenSSL drop them (SSL_CTX_set_num_tickets is out of pyOpenSSL's reach).
    """
    SSL._lib.SSL_set_options(connection._ssl, SSL.OP_NO_TICKET)  # type: ignore[attr-defined]


def restrict_groups(context: SSL.Context) -> None:
    """Exchange keys over a few curves alone; pyOpenSSL has no word for it."""
    if not any(SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1 for groups in _GROUPS):  # type: ignore[attr-defined]
        raise EnsconceError("tls.groups", "this OpenSSL knows none of the groups that keys are exchanged over")


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
    context.set_options(SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _accept_bare_key(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, _ok: int) -> bool:
    """Accept a lone self-signed certificate, whose signature and key are judged later; refuse everything else.

    Also one with an RSA key that nobody makes: checking its signatures would keep the server busy.

    The dates of a certificate of wire v1 are judged later as well, so that the log can say what was wrong with them.
    """
    judged_later = error in _DATES and not connection.get_alpn_proto_negotiated()
    return depth == 0 and (error in (0, _SELF_SIGNED_LEAF) or judged_later) and _is_cheap(certificate)


def _is_cheap(certificate: crypto.X509) -> bool:
    try:
        key = certificate.to_cryptography().public_key()
    except Exception:  # cryptography has half a dozen kinds for DER that is not right
        return True  # OpenSSL has read it; whoever reads it next says what is wrong
    if not isinstance(key, rsa.RSAPublicKey):
        return True
    return key.key_size <= _MAX_RSA_BITS and key.public_numbers().e <= _MAX_RSA_EXPONENT


def _note_issuer(connection: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, ok: int) -> bool:
    """OpenSSL's own verdict stands; what it refused is kept for :func:`refused_certificate`'s message."""
    if not ok:
        connection.set_app_data((certificate, error))
    return bool(ok)


def _select(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    if ALPN not in offered:
        raise UnreachableError(
            "tls.alpn",
            "the other side speaks other protocols",
            found=ascii(b", ".join(offered))[:100],
            rule=f"ALPN {ALPN.decode()}, or none for Gramine's protocol",
            remedy="check the other side's version",
        )
    return ALPN
