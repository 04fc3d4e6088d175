"""The certificate that both fronts present: from memory, and replaceable while they run.

The private key never touches a disk. Python's ``ssl`` reads keys only from files, so it gets an anonymous file in
memory (memfd_create(2)) by way of ``/proc/self/fd``, which is emptied and closed at once.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ensconce.errors import InputError
from ensconce.evidence.spki import spki_of

__all__ = ["ServingCertificate"]

_REMEDY: Final = "give the key and, in PEM, the leaf's certificate first, then the issuers'"


class ServingCertificate:
    """A private key and its certificate chain, as gRPC and REST present them."""

    def __init__(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Take a key and its chain, both PEM, leaf first.

        Raises:
            InputError: they cannot be read, do not belong together, or this system has no anonymous files in memory.
        """
        self._ssl_context = _context("http/1.1")
        self._http2_context = _context("h2")
        self.replace(private_key_pem, certificate_chain_pem)

    def replace(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Present another certificate on new connections; existing ones go on. All or nothing.

        To be called in the thread of the event loop that serves.

        Raises:
            InputError: as when it was made; the old certificate then stays.
        """
        _check_pair(private_key_pem, certificate_chain_pem)
        for context in (self._ssl_context, self._http2_context):
            _load(context, private_key_pem, certificate_chain_pem)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """For REST: TLS 1.2 or newer, no session tickets."""
        return self._ssl_context

    @property
    def http2_context(self) -> ssl.SSLContext:
        """For gRPC: the same."""
        return self._http2_context


def _context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    # No resumption: every connection shows the certificate, and with it the evidence.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _check_pair(private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
    try:
        leaf = x509.load_pem_x509_certificates(certificate_chain_pem)[0]
        key = load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError):
        raise InputError(
            "serving.certificate", "the serving certificate or its key cannot be read", remedy=_REMEDY
        ) from None
    if spki_of(leaf.public_key()) != spki_of(key.public_key()):
        raise InputError(
            "serving.certificate",
            "the serving certificate is for another key",
            found=leaf.subject.rfc4514_string(),
            remedy=_REMEDY,
        )


def _load(context: ssl.SSLContext, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
    try:
        handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    except (AttributeError, OSError) as error:
        raise InputError(
            "serving.memfd",
            "this system has no anonymous files in memory (memfd_create), and a private key may not go to a disk",
            found=str(error),
            remedy="serve on Linux 3.17 or newer",
        ) from error
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(private_key_pem.rstrip() + b"\n" + certificate_chain_pem)
        context.load_cert_chain(Path(f"/proc/self/fd/{handle}"))
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            "serving.certificate",
            "OpenSSL does not take the serving certificate",
            found=getattr(error, "reason", None) or error.strerror,
            remedy=_REMEDY,
        ) from None
    finally:
        os.ftruncate(handle, 0)
        os.close(handle)
