"""A simulated machine, an owner, replicas of any kind, and servers that write down what reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.server
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.published import Measurements
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.codec import PREDICT
from ensconce.client.leaf import replica_id
from ensconce.client.service import Service
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.request import make_certificate_request
from ensconce.ratls.verify import read_signed_request
from ensconce.serving.fronts import FrontOptions
from ensconce.serving.manager import ModelManager
from ensconce.serving.quotes import Quotes
from ensconce.serving.server import ModelServer, Ports
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import from_proto, to_proto

DOMAIN = "digits.example.test"
CODE = bytes(range(32))
OTHER_CODE = bytes(32)


@dataclass(frozen=True)
class Identification:
    """What a server identifies itself with."""

    key: ec.EllipticCurvePrivateKey
    chain_pem: bytes

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass
class World:
    """Everything outside of the client under test."""

    folder: Path
    vendor: SimulatedVendor
    authority: CertificateAuthority
    now: int
    report: Callable[..., SgxReport]

    def __post_init__(self) -> None:
        self.collateral = self.vendor.collateral(self.now)

    def quote(self, report_data: bytes, mr_enclave: bytes = CODE, debug: bool = False) -> bytes:
        flags = Attributes.INIT | Attributes.MODE64BIT | (Attributes.DEBUG if debug else 0)
        report = self.report(
            self.vendor, attributes=Attributes(flags, 3), mr_enclave=mr_enclave, report_data=report_data
        )
        return make_quote(self.vendor, report)

    def replica(
        self,
        *,
        mr_enclave: bytes = CODE,
        debug: bool = False,
        domain: str = DOMAIN,
        issued: int | None = None,
        authority: CertificateAuthority | None = None,
    ) -> Identification:
        """A key and its certificate, made the way a replica and the provisioning server make them."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = read_signed_request(
            make_certificate_request(key, domain, lambda data: self.quote(data, mr_enclave, debug))
        )
        chain = (authority or self.authority).issue_server(
            request.public_key, domain, now=issued or self.now, evidence=request.extension
        )
        return Identification(key, chain)

    def thief(self, victim: Identification, *, self_signed: bool) -> Identification:
        """Another key with the evidence of ``victim``."""
        stolen = next(
            extension.value
            for extension in x509.load_pem_x509_certificate(victim.chain_pem).extensions
            if isinstance(extension.value, x509.UnrecognizedExtension)
        )
        key = ec.generate_private_key(ec.SECP256R1())
        if not self_signed:
            return Identification(
                key, self.authority.issue_server(key.public_key(), DOMAIN, now=self.now, evidence=stolen)
            )
        return self.self_signed(key, stolen)

    def self_signed(
        self, key: ec.EllipticCurvePrivateKey, evidence: x509.UnrecognizedExtension | None
    ) -> Identification:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "RATLS")])
        now = dt.datetime.fromtimestamp(self.now, dt.UTC)
        builder = x509.CertificateBuilder(
            name, name, key.public_key(), 1, now - dt.timedelta(hours=1), now + dt.timedelta(days=3650)
        ).add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=False)
        if evidence is not None:
            builder = builder.add_extension(evidence, critical=False)
        return Identification(key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def appraiser(self, *, mr_enclave: bytes = CODE, root: str | None = None, after: int = 0) -> Appraiser:
        policy = Policy(
            roots=(root or self.vendor.root_name,),
            tcb_statuses=(TcbStatus.UP_TO_DATE,),
            identities=(Identity(name="server", mr_enclave=mr_enclave),),
        )
        return Appraiser(policy, Held(self.collateral), lambda: self.now + after)

    def measured(self, publisher: Any, *codes: bytes, **fields: Any) -> Measurements:
        """What a publisher says of replicas with this code."""
        report = self.report(self.vendor)
        made = publisher.measurements(*codes, **fields)
        enclaves = [
            each.model_dump(mode="json", exclude_none=True)
            | {"mr_signer": report.mr_signer.hex(), "isv_prod_id": report.isv_prod_id, "isv_svn": report.isv_svn}
            for each in made.enclaves
        ]
        return publisher.measurements(**fields, enclaves=enclaves)

    def service(self, *targets: Address, **options: Any) -> Service:
        """The service at these addresses, under a policy for its code."""
        options = {
            "server_name": DOMAIN,
            "appraiser": self.appraiser(),
            "authority": self.authority.certificate,
            **options,
        }
        return Service(targets=targets, **options)


@dataclass(frozen=True)
class Held:
    """Collateral that is here already."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, sound_report: Callable[..., SgxReport]) -> World:
    folder = tmp_path_factory.mktemp("world")
    now = int(time.time())
    vendor = SimulatedVendor.create(folder / "vendor", now, seed=bytes(32))
    return World(folder, vendor, CertificateAuthority.create("owner", now), now, sound_report)


def server_context(who: Identification, alpn: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(alpn)
    with tempfile.NamedTemporaryFile() as pem:
        pem.write(who.chain_pem + who.key_pem)
        pem.flush()
        context.load_cert_chain(pem.name)
    return context


@dataclass
class Recorder:
    """A TLS server that writes down every application byte, and answers each chunk in capitals; or does as ``talk``."""

    who: Identification
    listen: Callable[..., Any]
    alpn: list[str] = field(default_factory=lambda: ["h2", "http/1.1"])
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    received: bytearray = field(default_factory=bytearray)
    ended: int = 0
    names: list[str | None] = field(default_factory=list)
    talk: Callable[[ssl.SSLSocket], None] | None = None

    def __post_init__(self) -> None:
        self._context = server_context(self.who, self.alpn)
        self._context.maximum_version = self.maximum
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._open: set[socket.socket] = set()
        self._listener = self.listen(self._talk)

    @property
    def accepted(self) -> int:
        return int(self._listener.accepted)

    @property
    def target(self) -> Address:
        address: Address = self._listener.address
        return address

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop_listening(self) -> None:
        self._listener.stop()

    def stop(self) -> None:
        self._listener.stop()
        self.cut()

    def _talk(self, connection: socket.socket) -> None:
        self._open.add(connection)
        try:
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
                self._open.add(tls)
                if self.talk is not None:
                    self.talk(tls)
                while data := tls.recv(65536):
                    self.received += data
                    tls.sendall(data.upper())
        finally:
            self.ended += 1


@pytest.fixture
def recorder(listen: Callable[..., Any]) -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(who: Identification, **options: Any) -> Recorder:
        made.append(Recorder(who, listen, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@dataclass
class GrpcReplica:
    """A gRPC server with ``Predict``: each input comes back under its own name, doubled.

    The model "slow" answers no sooner than the server stops; neither does any while ``holds``, unless it is cancelled.
    As many calls as ``refuses`` says end in UNAVAILABLE.
    """

    who: Identification
    port: int = 0
    max_age_ms: int = 3_600_000
    served: int = 0
    holds: bool = False
    refuses: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        options = [("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", self.max_age_ms)]
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        _, service, method = PREDICT.split("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(self._predict, PredictRequest.FromString, _serialize)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        credentials = grpc.ssl_server_credentials([(self.who.key_pem, self.who.chain_pem)])
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        self._server.start()

    @property
    def target(self) -> Address:
        return Address("127.0.0.1", self.port)

    @property
    def name(self) -> str:
        """Its id."""
        return replica_id(x509.load_pem_x509_certificate(self.who.chain_pem))

    def stop(self) -> None:
        self._stopping.set()
        self._server.stop(0).wait()

    def _predict(self, request, context: grpc.ServicerContext):
        self.served += 1
        if request.model_spec.name == "absent":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(absent)")
        if request.model_spec.name == "slow":
            self._stopping.wait(30)
        while self.holds and not self._stopping.wait(0.005):
            if not context.is_active():
                self.cancelled += 1
                break
        if self.refuses:
            self.refuses -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "too much")
        response = PredictResponse()
        for name, tensor in request.inputs.items():
            response.outputs[name].CopyFrom(to_proto(from_proto(tensor) * 2))
        return response


def _serialize(message) -> bytes:
    return message.SerializeToString()


@pytest.fixture
def grpc_replica() -> Iterator[Callable[..., GrpcReplica]]:
    made: list[GrpcReplica] = []

    def make(*arguments, **options) -> GrpcReplica:
        made.append(GrpcReplica(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = f"{self.headers['host']} {self.path} ".encode() + body
        self.send_response(200)
        if self.path == "/ends-with-the-connection":
            self.close_connection = True
        else:
            self.send_header("content-length", str(len(answer) + (self.path == "/is-cut-short")))
            self.close_connection = self.path == "/is-cut-short"
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def rest_replica() -> Iterator[Callable[[Identification], Address]]:
    made: list[http.server.ThreadingHTTPServer] = []

    def make(who: Identification) -> Address:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
        server.daemon_threads = True
        server.socket = server_context(who, ["http/1.1"]).wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made.append(server)
        return Address("127.0.0.1", server.server_address[1])

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(world: World) -> Iterator[Callable[..., tuple[Address, Address]]]:
    """Starts model servers that make quotes with a function; gives where gRPC and REST are."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[ModelServer] = []

    def make(who: Identification, quote: Callable[[bytes], bytes] | None = None) -> tuple[Address, Address]:
        async def start() -> Ports:
            server = ModelServer(
                ModelManager(),
                grpc_address="127.0.0.1:0",
                rest_address="127.0.0.1:0",
                private_key_pem=who.key_pem,
                certificate_chain_pem=who.chain_pem,
                options=FrontOptions(quotes=Quotes(quote or world.quote)),
            )
            servers.append(server)
            return await server.start()

        ports = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        return Address("127.0.0.1", ports.grpc), Address("127.0.0.1", ports.rest)

    yield make
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
