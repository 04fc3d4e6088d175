"""The report data of a quote that proves: this enclave, now, at the other end of exactly this TLS channel.

Wire formats: ``docs/reference/wire-v2.md``, section "Channel binding", for enclaves that ask for keys, and
``docs/reference/client.md``, section "Freshness", for clients that ask enclaves. Every part is there for an attack:

* *nonce*, chosen by the server and used once: an old quote (replay);
* *exporter* (RFC 9266): a quote made for another connection (relay, diversion). In TLS 1.3 it covers the handshake up
  to the server's Finished message (RFC 8446, section 7.5), so not the client's certificate;
* *client's key*: therefore bound by itself: another client's certificate on the enclave's channel;
* *server's key*: a quote for an impostor that hopes to reflect it to the true server;
* *certificate request*: a request swapped for another after the quote was made.

In the other direction the client chooses the nonce, has no certificate and asks for nothing else.
"""

from __future__ import annotations

import hashlib

__all__ = [
    "DOMAIN",
    "EXPORTER_SIZE",
    "NONCE_SIZE",
    "SEALING_DOMAIN",
    "SERVING_DOMAIN",
    "channel_binding",
    "sealing_binding",
    "serving_binding",
]

DOMAIN = b"ensconce/1 channel binding"
"""Separates these hashes from every other use of SHA-512 over quotes' report data."""

SERVING_DOMAIN = b"ensconce/1 serving channel"
"""The same for quotes that clients of a replica ask for: neither kind can stand for the other."""

SEALING_DOMAIN = b"ensconce/1 fresh sealing key"
"""The same for quotes over sealing keys, where there is no channel between client and replica."""

NONCE_SIZE = 32
"""Bytes in a nonce."""

EXPORTER_SIZE = 32
"""Bytes of keying material that RFC 9266 exports."""


def channel_binding(
    *, nonce: bytes, exporter: bytes, server_spki: bytes, client_spki: bytes, certificate_request: bytes
) -> bytes:
    """The 64 bytes of report data for one attested channel.

    SHA-512 over six byte strings, each preceded by its length as 4 bytes big-endian: :data:`DOMAIN` and the five
    arguments in this order.

    Args:
        nonce: 32 bytes from the server's challenge.
        exporter: 32 bytes, ``tls-exporter`` of RFC 9266.
        server_spki: the server's leaf key, DER SubjectPublicKeyInfo.
        client_spki: the client's leaf key, DER SubjectPublicKeyInfo.
        certificate_request: the certificate request exactly as it is sent, DER.

    Raises:
        ValueError: a part is missing or has the wrong length, which would be a bug in the caller.
    """
    if not (client_spki and certificate_request):
        raise ValueError("both keys and the certificate request are needed")
    return _hashed(DOMAIN, nonce, exporter, server_spki, client_spki, certificate_request)


def serving_binding(*, nonce: bytes, exporter: bytes, server_spki: bytes) -> bytes:
    """The 64 bytes of report data for one channel from a client to a replica.

    SHA-512 as in :func:`channel_binding`, over :data:`SERVING_DOMAIN` and the three arguments in this order.

    Args:
        nonce: 32 bytes, the client's.
        exporter: 32 bytes, ``tls-exporter`` of RFC 9266.
        server_spki: the key of the certificate that this channel showed, DER SubjectPublicKeyInfo.

    Raises:
        ValueError: as :func:`channel_binding`.
    """
    return _hashed(SERVING_DOMAIN, nonce, exporter, server_spki)


def sealing_binding(*, nonces: bytes, key: bytes, server_spki: bytes) -> bytes:
    """The 64 bytes of report data for a sealing key, for all clients that ask for it at one time.

    SHA-512 as in :func:`channel_binding`, over :data:`SEALING_DOMAIN` and the three arguments in this order.

    Args:
        nonces: the clients', 32 bytes each, one behind the other.
        key: the sealing key, 32 bytes.
        server_spki: the key of the certificate that vouches for it, DER SubjectPublicKeyInfo.
    """
    return _digest(SEALING_DOMAIN, nonces, key, server_spki)


def _hashed(domain: bytes, nonce: bytes, exporter: bytes, server_spki: bytes, *more: bytes) -> bytes:
    if len(nonce) != NONCE_SIZE or len(exporter) != EXPORTER_SIZE:
        raise ValueError("nonce and exporter have 32 bytes each")
    if not server_spki:
        raise ValueError("the server's key is needed")
    return _digest(domain, nonce, exporter, server_spki, *more)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha512()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
