"""A policy that lets identities use Gramine's protocol, and programs that ask as Gramine's library does."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.appraisal.policy import Identity, Policy, WireV1
from ensconce.appraisal.verdict import TcbStatus
from ensconce.platform.simulated.pki import SimulatedVendor

SERVER_NAME = "provisioning.digits.example.test"
REQUEST = b"SECRET_PROVISION_RA_TLS_REQUEST_V1\x00"
RESPONSE = b"SECRET_PROVISION_RA_TLS_RESPONSE_V1:\x00"

Refused = Callable[..., Mapping[str, Any]]


@pytest.fixture
def policy(vendor: SimulatedVendor) -> Policy:
    def identity(name: str, number: int, secret: str, form: Any) -> Identity:
        receives = secret if secret.startswith("secret/") else secret.rpartition("/")[0]
        return Identity(
            name=name, mr_enclave=bytes([number]) * 32, receives=(receives,), wire_v1=WireV1(secret=secret, form=form)
        )

    return Policy(
        roots=(vendor.root_name,),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        identities=(
            identity("program", 0x11, "model/digits/1", "raw"),
            identity("old program", 0x22, "model/digits/1", "hex"),
            identity("licensed", 0x33, "secret/licence", "text"),
            identity("hopeful", 0x44, "model/digits/9", "raw"),
            identity("wrong form", 0x55, "secret/licence", "raw"),
            Identity(name="modern", mr_enclave=b"\x66" * 32, receives=("model/digits",)),
        ),
    )


@pytest.fixture
def owner(owners: Callable[..., Any]) -> Any:
    owner = owners()
    owner.keystore.put("secret/licence", b"for one seat", kind="secret")
    return owner


@dataclasses.dataclass
class Program:
    """A program with Gramine's library, as far as the network can tell."""

    owner: Any
    enclave: Any
    make: Callable[..., x509.Certificate]
    folder: Path
    key: Any

    def context(
        self,
        key: Any = None,
        forms: tuple[str, ...] = ("legacy", "tcg"),
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        certificate: x509.Certificate | None = None,
        others: tuple[x509.Certificate, ...] = (),
        key_der: bytes | None = None,
        **changes: Any,
    ) -> ssl.SSLContext:
        key = key or self.key
        certificate = certificate or self.make(key, self.enclave.quote, forms, **changes)
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *others))
        private = key_der or key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        kind = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
        (self.folder / "client.pem").write_bytes(pem)
        (self.folder / "client.key").write_text(
            ssl.DER_cert_to_PEM_cert(private).replace("CERTIFICATE", f"{kind} PRIVATE KEY")
        )
        context = ssl.create_default_context(cadata=self.owner.authority.certificate_pem.decode())
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context

    @contextlib.contextmanager
    def connect(
        self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection(("127.0.0.1", self.owner.server.port), 30) as sock,
            (context or self.context()).wrap_socket(
                sock, server_hostname=SERVER_NAME, suppress_ragged_eofs=False, session=session
            ) as tls,
        ):
            yield tls

    def ask(self, request: bytes = REQUEST, enclave: Any = None, **how: Any) -> bytes | None:
        """The secret as it came, or None when the server said goodbye instead."""
        self.enclave = enclave or self.enclave
        with self.connect(self.context(**how)) as tls:
            tls.sendall(request)
            return self.receive(tls)

    @staticmethod
    def receive(tls: ssl.SSLSocket) -> bytes | None:
        """All until the server's close_notify; without one, an exception."""
        data = b""
        while chunk := tls.recv(4096):
            data += chunk
        if not data:
            return None
        header, size, secret = data[:37], int.from_bytes(data[37:41], "big"), data[41:]
        assert header == RESPONSE
        assert size == len(secret)
        return secret


@pytest.fixture
def programs(
    gramine_certificate: Callable[..., x509.Certificate], enclave: Any, tmp_path: Path
) -> Callable[[Any], Program]:
    key = ec.generate_private_key(ec.SECP384R1())
    return lambda owner: Program(owner, enclave, gramine_certificate, tmp_path, key)


@pytest.fixture
def program(owner: Any, programs: Callable[[Any], Program]) -> Program:
    return programs(owner)


@pytest.fixture
def refused(owner: Any) -> Refused:
    """The only entry in the log, which is a refusal for this reason."""

    def check(name: str, of: Any = owner) -> Mapping[str, Any]:
        ((event, fields),) = of.wait_for_log(1)
        assert (event, fields["check"]) == ("key.refused", name), fields
        return dict(fields)

    return check
