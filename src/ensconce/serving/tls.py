"""The certificate that both fronts present: from memory, and replaceable while they run.

The private key never touches a disk. Python's ``ssl`` reads keys only from files, so it gets an anonymous file in
memory (memfd_create(2)) by way of ``/proc/self/fd``, which is emptied and closed at once. Gramine has no such files; in
its enclaves it is a file in :data:`MEMORY_FOLDER`, which the measured manifest mounts there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ensconce.errors import InputError
from ensconce.evidence.spki import spki_of

__all__ = ["MEMORY_FOLDER", "ServingCertificate"]

MEMORY_FOLDER: Final = Path("/private")
"""Where Gramine keeps files in the enclave's own memory (a mount of type ``tmpfs``). A file system of the host's that
were mounted there instead would not be written to: a manifest without that mount allows no file there."""

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


_MOUNTS: Final = Path("/proc/self/mountinfo")


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
    with _file_in_memory() as (handle, path):
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(private_key_pem.rstrip() + b"\n" + certificate_chain_pem)
            context.load_cert_chain(path)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                "serving.certificate",
                "OpenSSL does not take the serving certificate",
                found=getattr(error, "reason", None) or error.strerror,
                remedy=_REMEDY,
            ) from None


def _is_in_memory(folder: Path) -> bool:
    """Whether a folder is a tmpfs. A Linux says so; Gramine, where the manifest says so, has no such file.

    A filter of system calls can make memfd_create fail on any Linux, where the folder may lie on a disk.
    """
    try:
        mounts = _MOUNTS.read_text().splitlines()
    except FileNotFoundError:
        return True
    # proc(5): ... mount point, options, optional fields, a hyphen, type of the file system.
    return any(
        fields[4] == str(folder) and fields[fields.index("-") + 1] == "tmpfs"
        for fields in (line.split() for line in mounts)
    )


@contextlib.contextmanager
def _file_in_memory() -> Iterator[tuple[int, Path]]:
    """A descriptor to write to, and a path to read from, of a file that is on no disk and empty in the end."""
    named: Path | None = None
    try:
        try:
            handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            if not _is_in_memory(MEMORY_FOLDER):
                raise
            named = MEMORY_FOLDER / "certificate.pem"
            handle = os.open(named, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError) as error:
        raise InputError(
            "serving.memfd",
            "this system has no anonymous files in memory (memfd_create), and a private key may not go to a disk",
            found=str(error),
            remedy=f"serve on Linux 3.17 or newer; under Gramine, mount a tmpfs at {MEMORY_FOLDER}",
        ) from error
    try:
        yield handle, named or Path(f"/proc/self/fd/{handle}")
    finally:
        os.ftruncate(handle, 0)
        os.close(handle)
        if named is not None:
            named.unlink()
