"""The server's end of TLS in memory, under a client that OpenSSL would not be."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from ensconce.ratls.authority import CertificateAuthority
from ensconce.serving.tls import ServingCertificate


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """RFC 8446, section 7.1: HKDF-Expand-Label with an empty context."""
    named = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(named)]) + named + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def test_a_client_that_asks_for_new_keys_without_end_fills_no_memory() -> None:
    authority = CertificateAuthority.create("somebody", 1_790_000_000)
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = ServingCertificate(key, authority.certificate.public_bytes(Encoding.PEM))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificate.http2_context.wrap_bio(incoming, outgoing)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    lines: list[bytes] = []
    context.set_keylog_callback(lambda _, line: lines.append(line))
    library: Any = SSL._lib  # type: ignore[attr-defined]
    assert library.SSL_CTX_set_ciphersuites(context._context, b"TLS_AES_128_GCM_SHA256")
    client = SSL.Connection(context, None)
    client.set_connect_state()
    for _ in range(4):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            incoming.write(client.bio_read(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        if outgoing.pending:
            client.bio_write(outgoing.read())
    secret = bytes.fromhex(
        next(line for line in lines if line.startswith(b"CLIENT_TRAFFIC_SECRET_0")).split()[2].decode()
    )

    def ask(secret: bytes) -> None:
        for _ in range(2000):
            head = b"\x17\x03\x03\x00\x16"
            update = AESGCM(_expand(secret, b"key", 16)).encrypt(_expand(secret, b"iv", 12), b"\x18\0\0\1\1\x16", head)
            secret = _expand(secret, b"traffic upd", 32)
            incoming.write(head + update)
            with contextlib.suppress(ssl.SSLWantReadError):
                server.read(16384, bytearray(16384))

    with pytest.raises(ssl.SSLError, match="too often"):
        ask(secret)
    assert outgoing.pending < 32 * 1024
