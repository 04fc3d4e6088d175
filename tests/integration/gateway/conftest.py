"""TLS servers to put behind a gateway, and both gateways."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.gateway.backends import ApiName, Backend, Gateway
from ensconce.gateway.choice import open_gateway
from ensconce.gateway.nginx_program import Nginx, find_nginx

DOMAIN = "digits.example.test"

Connect = Callable[..., tuple[ssl.SSLSocket, str]]


class Replica:
    """A TLS server that says its name, then sends back what it gets, until the client ends its direction."""

    def __init__(self, name: str, context: ssl.SSLContext, listen: Callable[..., Any]) -> None:
        self.name = name
        self.received = 0
        self._context = context
        self._open: set[socket.socket] = set()
        self._listener = listen(self._talk)

    @property
    def accepted(self) -> int:
        return int(self._listener.accepted)

    @property
    def port(self) -> int:
        return int(self._listener.address.port)

    @property
    def backend(self) -> Backend:
        return Backend(self.name, "127.0.0.1", self.port, self.port)

    def stop(self) -> None:
        self._listener.stop()
        for connection in list(self._open):
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
            self._open.add(tls)
            tls.sendall(self.name.encode() + b"\n")
            while data := tls.recv(65536):
                self.received += len(data)
                tls.sendall(data)
            self._open.discard(tls)


@pytest.fixture(scope="session")
def server_context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.fixture
def replicas(server_context: ssl.SSLContext, listen: Callable[..., Any]) -> Iterator[Callable[[int], list[Replica]]]:
    made: list[Replica] = []

    def make(count: int) -> list[Replica]:
        new = [Replica(f"replica-{len(made) + index + 1}", server_context, listen) for index in range(count)]
        made.extend(new)
        return new

    yield make
    for replica in made:
        replica.stop()


@pytest.fixture(params=["nginx", "embedded"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    found = find_nginx()
    if request.param == "nginx" and not isinstance(found, Nginx):
        pytest.skip(f"{found.reason}; {found.remedy}")
    made = open_gateway(
        request.param, tmp_path / "gate way", grpc=Address("127.0.0.1", 0), rest=Address("127.0.0.1", 0), domain=DOMAIN
    )
    assert made.kind == request.param
    yield made
    made.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens TLS connections through a gateway; gives the connection and the name of the replica that answered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.ExitStack() as stack:

        def make(gateway: Gateway, name: str | None = DOMAIN, api: ApiName = "grpc") -> tuple[ssl.SSLSocket, str]:
            raw = stack.enter_context(socket.create_connection(gateway.addresses[api], timeout=30))
            tls = stack.enter_context(context.wrap_socket(raw, server_hostname=name))
            return tls, tls.recv(100).decode().strip()

        yield make


@pytest.fixture
def processes_in() -> Callable[[Path], set[int]]:
    """The processes whose working folder is the given one: a gateway runs in a folder of its own."""

    def look(folder: Path) -> set[int]:
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (entry / "cwd").readlink() == folder:
                        found.add(int(entry.name))
        return found

    return look
