"""The certificate that both fronts present: from memory, and replaceable while they run.

TLS is pyOpenSSL's in the place of Python's own ``ssl``, which exports no keying material and reads private keys from
files only. asyncio drives it all the same, see :mod:`ensconce.serving.tls_object`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from ensconce.errors import InputError
from ensconce.evidence.spki import spki_of
from ensconce.files import read_bounded
from ensconce.ratls.buffers import Outbox
from ensconce.ratls.context import TLS_1_2_CIPHERS, forbid_tickets, restrict_groups
from ensconce.ratls.freshness import FRESH
from ensconce.serving.opening import Opening
from ensconce.serving.quotes import Quotes
from ensconce.serving.tls_object import TlsObject

__all__ = ["ServingCertificate", "TlsContext"]

_MAX_PEM: Final = 1 << 16
_REMEDY: Final = "give the key and, in PEM, the leaf's certificate first, then the issuers'"


class TlsContext:
    """What asyncio takes for an ``ssl.SSLContext``: makes the server's end of connections.

    TLS 1.2 or newer, forward secrecy, no session tickets: every connection shows the certificate.
    """

    def __init__(
        self, protocol: str, *, quotes: Quotes | None = None, clients: Callable[[SSL.Context], None] | None = None
    ) -> None:
        """Prepare; :meth:`present` comes before the first connection.

        Args:
            protocol: what is spoken, as ALPN names it.
            quotes: for clients that want one first, see :mod:`ensconce.ratls.freshness`; without, there are none.
            clients: says how clients have to show who they are; without, they show nothing.
        """
        names = (protocol, FRESH[protocol]) if quotes is not None else (protocol,)
        self._protocols = [name.encode() for name in names]
        self._clients, self._quotes = clients, quotes
        self._context: SSL.Context | None = None
        self._outbox = Outbox()

    def present(self, key: Any, chain: list[x509.Certificate]) -> None:
        """Present a certificate and its issuers' from now on.

        Raises:
            SSL.Error: OpenSSL does not take them.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(TLS_1_2_CIPHERS)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        restrict_groups(context)
        context.set_tlsext_servername_callback(forbid_tickets)
        context.set_alpn_select_callback(self._select)
        context.use_certificate(chain[0])
        context.use_privatekey(key)
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.check_privatekey()
        if self._clients is not None:
            self._clients(context)
        self._context = context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = True,
        server_hostname: str | None = None,
    ) -> TlsObject:
        """The server's end of a connection; called by asyncio."""
        assert server_side
        assert server_hostname is None
        assert self._context is not None
        return TlsObject(self._context, incoming, outgoing, self._outbox)

    def opened(self, connection: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """What drives a connection from the end of its handshake; ``connection`` makes the protocol proper."""
        return connection() if self._quotes is None else Opening(connection, self._quotes)

    def _select(self, _connection: SSL.Connection, offered: list[bytes]) -> Any:
        # As gRPC's servers: whoever offers nothing of ours is not turned away here.
        return next((each for each in self._protocols if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


class ServingCertificate:
    """A private key and its certificate chain, as gRPC and REST present them."""

    def __init__(
        self,
        private_key_pem: bytes,
        certificate_chain_pem: bytes,
        *,
        quotes: Quotes | None = None,
        clients: Callable[[SSL.Context], None] | None = None,
    ) -> None:
        """Take a key and its chain, both PEM, leaf first.

        Args:
            private_key_pem: not encrypted.
            certificate_chain_pem: the issuers' after it.
            quotes: see :class:`TlsContext`.
            clients: see there.

        Raises:
            InputError: they cannot be read, or do not belong together.
        """
        self.ssl_context = TlsContext("http/1.1", quotes=quotes, clients=clients)
        """For REST."""
        self.http2_context = TlsContext("h2", quotes=quotes, clients=clients)
        """For gRPC."""
        self.replace(private_key_pem, certificate_chain_pem)

    @classmethod
    def read(cls, key: Path, chain: Path) -> ServingCertificate:
        """The key and the chain in two files.

        Raises:
            InputError: they are missing or too long; or as for the class.
        """
        return cls(read_bounded(key, _MAX_PEM), read_bounded(chain, _MAX_PEM))

    def replace(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Present another certificate on new connections; existing ones go on. All or nothing.

        To be called in the thread of the event loop that serves.

        Raises:
            InputError: as when it was made; the old certificate then stays.
        """
        try:
            chain = x509.load_pem_x509_certificates(certificate_chain_pem)
            key: Any = load_pem_private_key(private_key_pem, password=None)
        except (ValueError, TypeError):
            raise InputError(
                "serving.certificate", "the serving certificate or its key cannot be read", remedy=_REMEDY
            ) from None
        if spki_of(chain[0].public_key()) != spki_of(key.public_key()):
            raise InputError(
                "serving.certificate",
                "the serving certificate is for another key",
                found=chain[0].subject.rfc4514_string(),
                remedy=_REMEDY,
            )
        try:
            for context in (self.ssl_context, self.http2_context):
                context.present(key, chain)
        except (SSL.Error, TypeError):
            raise InputError(
                "serving.certificate", "OpenSSL does not take the serving certificate", remedy=_REMEDY
            ) from None
