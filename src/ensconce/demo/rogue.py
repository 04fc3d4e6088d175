"""A replica of the host's own: it runs no enclave and shows the evidence of one that does."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ensconce.evidence.certificate import OID_TCG

__all__ = ["RogueReplica", "certificate_of"]

_TIMEOUT_S = 10.0


def certificate_of(host: str, port: int, server_name: str) -> x509.Certificate:
    """The certificate that a server shows to anybody; nothing of it is checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), _TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname=server_name) as stream,
    ):
        der = stream.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


class RogueReplica:
    """A TLS server with a key of its own and the evidence extension of ``victim``; counts what it is sent.

    Args:
        victim: the certificate of a genuine replica, which is public.
        folder: the host's, for the rogue's own key.
        domain: the service's name.
    """

    def __init__(self, victim: x509.Certificate, folder: Path, domain: str) -> None:
        self.received = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._context.load_cert_chain(_certificate(victim, folder, domain))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens, on the loopback address."""
        port = self._socket.getsockname()[1]
        assert isinstance(port, int)
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            raw.settimeout(_TIMEOUT_S)
            with contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as stream:
                while part := stream.recv(65536):
                    self.received += len(part)


def _certificate(victim: x509.Certificate, folder: Path, domain: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = dt.datetime.now(dt.UTC)
    evidence = victim.extensions.get_extension_for_oid(OID_TCG).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .add_extension(evidence, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / "rogue.pem"
    path.write_bytes(pem)
    return path
