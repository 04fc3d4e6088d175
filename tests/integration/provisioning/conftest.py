"""An owner with a provisioning server on a real socket, and machines whose enclaves make real simulated quotes."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.audit.verify import verify_log
from ensconce.evidence.report import SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.keys import FolderPlace, KeyFile, SealedKeystore, new_key_file
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import Provisioned, provision
from ensconce.provisioning.frames import read_frame, write_frame
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.messages import Grant, ModelVersion, Request, encode, parse_answer, parse_challenge
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.binding import channel_binding
from ensconce.ratls.context import client_context, exporter, peer_spki
from ensconce.ratls.request import make_certificate_request, make_key_container
from ensconce.ratls.stream import TlsStream

DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.digits.example.test"
KEY_1, KEY_2, OTHER_KEY = b"first wrap key 1", b"second wrap key!", b"of another model"


def now() -> int:
    return int(time.time())


@dataclass(frozen=True)
class Source:
    """Collateral straight from the vendor."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral


@dataclass(frozen=True)
class Enclave:
    """An enclave on a simulated machine: what its CPU says about it, whatever report data it asks for."""

    vendor: SimulatedVendor
    report: SgxReport
    quoted: list[bytes] = field(default_factory=list)

    def quote(self, report_data: bytes) -> bytes:
        self.quoted.append(make_quote(self.vendor, replace(self.report, report_data=report_data)))
        return self.quoted[-1]

    def but(self, **changes: Any) -> Enclave:
        """Another enclave: some fields of its report differ."""
        return Enclave(self.vendor, replace(self.report, **changes))


@dataclass(frozen=True)
class Owner:
    """The owner's side, running."""

    server: ProvisioningServer
    authority: CertificateAuthority
    keystore: SealedKeystore
    policy: Policy
    audit_folder: Path
    signing_key: Ed25519PrivateKey

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def log(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Events and their fields, once the whole log has been verified."""
        verify_log(self.audit_folder, self.signing_key.public_key())
        log = AuditLog.open(self.audit_folder, self.signing_key, now)
        return [(entry.event, entry.fields) for entry in log.entries()]

    def wait_for_log(self, count: int) -> list[tuple[str, Mapping[str, Any]]]:
        deadline = time.monotonic() + 30
        while len(entries := self.log()) < count and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return entries

    def provision(self, enclave: Enclave, *models: tuple[str, int], **changes: Any) -> Provisioned:
        arguments: dict[str, Any] = {
            "servers": [self.address],
            "server_name": SERVER_NAME,
            "ca_pem": self.authority.certificate_pem,
            "quote": enclave.quote,
            "domain": DOMAIN,
            "models": models or (("digits", 1),),
            "timeout": 30.0,
        }
        return provision(**(arguments | changes))


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now())


@pytest.fixture
def enclave(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> Enclave:
    return Enclave(vendor, sound_report(vendor))


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("the owner", now())


@pytest.fixture
def policy(vendor: SimulatedVendor) -> Policy:
    return Policy(
        roots=(vendor.root_name,),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        identities=(
            Identity(name="digits replica", mr_enclave=b"\x11" * 32, receives=("model/digits",)),
            Identity(name="spectator", mr_enclave=b"\x33" * 32),
        ),
    )


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keystore and what opens it, to copy: each key that is put waits for the disk."""
    folder = tmp_path_factory.mktemp("sealed")
    keystore = SealedKeystore.create(FolderPlace(folder / "keystore"), new_key_file(folder / "unlock.key"))
    for key_id, secret in (("model/digits/1", KEY_1), ("model/digits/2", KEY_2), ("model/faces/1", OTHER_KEY)):
        keystore.put(key_id, secret, kind="wrap")
    return folder


@pytest.fixture
def owners(
    tmp_path: Path, sealed: Path, vendor: SimulatedVendor, authority: CertificateAuthority, policy: Policy
) -> Iterator[Callable[..., Owner]]:
    """Starts owners; keyword arguments replace those of the server."""
    started: list[tuple[ProvisioningServer, threading.Thread]] = []

    def start(policy: Policy = policy, **changes: Any) -> Owner:
        folder = tmp_path / f"owner-{len(started)}"
        shutil.copytree(sealed, folder)
        keystore = SealedKeystore.open(FolderPlace(folder / "keystore"), KeyFile(folder / "unlock.key"))
        signing_key = Ed25519PrivateKey.generate()
        arguments: dict[str, Any] = {
            "server_name": SERVER_NAME,
            "authority": authority,
            "appraiser": Appraiser(policy, Source(vendor.collateral(now())), now),
            "keystore": keystore,
            "audit": AuditLog.open(folder / "audit", signing_key, now),
            "domain": DOMAIN,
            "now": now,
            "limits": Limits(handshake_time=30.0, exchange_time=30.0, closing_time=0.5),
        }
        server = ProvisioningServer(Address("127.0.0.1", 0), **(arguments | changes))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started.append((server, thread))
        return Owner(server, authority, keystore, policy, folder / "audit", signing_key)

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def owner(owners: Callable[..., Owner]) -> Owner:
    return owners()


class Raw:
    """A client that speaks the protocol as far as one wants, and then does something else.

    It stops after the challenge; ``binding`` is what an honest enclave would have quoted.
    """

    def __init__(self, owner: Owner, key: Any = None, context: SSL.Context | None = None, hello: bool = True) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        context = context or client_context(self.key, make_key_container(self.key), owner.authority.certificate)
        sock = socket.create_connection(Address("127.0.0.1", owner.server.port), 30)
        self.stream = TlsStream(context, sock, deadline=time.monotonic() + 30, server_name=SERVER_NAME)
        self.stream.handshake()
        if hello:
            self.challenge = parse_challenge(read_frame(self.stream))

    def request(self, enclave: Enclave) -> bytes:
        return make_certificate_request(self.key, DOMAIN, enclave.quote)

    def binding(self, request: bytes, **changes: bytes) -> bytes:
        parts = {
            "nonce": self.challenge.nonce,
            "exporter": exporter(self.stream.connection),
            "server_spki": peer_spki(self.stream.connection),
            "client_spki": spki_of(self.key.public_key()),
            "certificate_request": request,
        }
        return channel_binding(**(parts | changes))

    def ask(self, quote: bytes, request: bytes) -> Grant:
        models = (ModelVersion(name="digits", version=1),)
        write_frame(self.stream, encode(Request(quote=quote, certificate_request=request, models=models)))
        return self.answer()

    def answer(self) -> Grant:
        return parse_answer(read_frame(self.stream))


@pytest.fixture
def raw(owner: Owner) -> Iterator[Callable[..., Raw]]:
    opened: list[Raw] = []

    def connect(**arguments: Any) -> Raw:
        opened.append(Raw(**({"owner": owner} | arguments)))
        return opened[-1]

    yield connect
    for client in opened:
        client.stream.close()
