"""How a client asks a replica for a quote over its own nonce and this very channel, before anything else is said.

The client offers a protocol of :data:`FRESH` alone (ALPN, RFC 7301) and sends a nonce, which nothing precedes; the
server answers with the length of a quote, 4 bytes big-endian, and the quote; a length of 0 says that it makes none now,
and ends the connection. From there on it is HTTP's. Reference: ``docs/reference/client.md``, "Freshness".
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import serving_binding
from ensconce.ratls.context import exporter

__all__ = ["FRESH", "LENGTH_SIZE", "answer", "client_report_data", "server_report_data"]

FRESH: Final = {"h2": "ensconce-quote/1+h2", "http/1.1": "ensconce-quote/1+http/1.1"}
"""By the protocol that comes after the quote: what is agreed on instead."""

LENGTH_SIZE: Final = 4
"""Bytes of the length before the quote."""


def answer(quote: bytes) -> bytes:
    """A quote as it is sent; an empty one says that there is none."""
    return len(quote).to_bytes(LENGTH_SIZE, "big") + quote


def client_report_data(connection: SSL.Connection, nonce: bytes) -> bytes:
    """The report data that the other end's quote must have, at the client's end of a TLS 1.3 connection."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return serving_binding(nonce=nonce, exporter=exporter(connection), server_spki=spki_of(certificate.public_key()))


def server_report_data(connection: SSL.Connection, nonce: bytes) -> bytes:
    """The same at the server's end."""
    certificate = connection.get_certificate(as_cryptography=True)
    assert certificate is not None
    return serving_binding(nonce=nonce, exporter=exporter(connection), server_spki=spki_of(certificate.public_key()))
