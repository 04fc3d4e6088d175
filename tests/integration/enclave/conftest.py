"""A machine, an owner with sealed models and a provisioning server, and replicas in launched enclaves.

All enclaves have one image, which is staged once: what each reads beside that is its own. Staging takes a second and
writes 180 MB; tests/unit/enclave tries it, and tests/integration/cluster launches what `enclave build` made.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

import ensconce
from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.origin import ServerOrigin
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.enclave.build import MANIFEST, SIGSTRUCT, EnclaveIdentity, EnclaveSpec, read_identity
from ensconce.enclave.config import ListenConfig, ModelConfig, ServingConfig
from ensconce.enclave.image import Image, build_image
from ensconce.enclave.manifest import FOLDER, render
from ensconce.enclave.sign import sign_manifest
from ensconce.keys import FolderPlace, SealedKeystore
from ensconce.keys.unlock import new_key_file
from ensconce.models.seal import seal
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.measurement import measure
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority
from ensconce.state.folder import FolderStore

REPOSITORY = Path(__file__).parents[3]
DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.example.test"
DEADLINE_S = 60.0
DIGITS = ModelConfig(name="digits")
QUICK = ServingConfig(poll_seconds=0.05)
ANY_PORTS = ListenConfig()


def now() -> int:
    return int(time.time())


def _until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return value


@dataclass
class Replica:
    """A launched replica and its folder."""

    folder: Path
    pid: int
    control: PlatformControl

    def ready(self) -> dict[str, Any]:
        """What it says in ``ready.json``."""

        def read() -> dict[str, Any] | None:
            assert self.status() is None, self.errors()
            with contextlib.suppress(FileNotFoundError):
                return json.loads((self.folder / "ready.json").read_text())  # type: ignore[no-any-return]
            return None

        return _until(read, "the replica is not ready")

    def status(self) -> int | None:
        return next(entry.exit_status for entry in self.control.list() if entry.pid == self.pid)

    def wait(self) -> int:
        _until(lambda: self.status() is not None, "the replica does not end")
        status = self.status()
        assert status is not None
        return status

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def errors(self) -> str:
        return (self.folder / "err").read_text()

    def error(self) -> dict[str, str]:
        """The last words, which must be the only ones."""
        (line,) = self.errors().splitlines()
        return json.loads(line)["error"]  # type: ignore[no-any-return]

    def rest(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A REST request over TLS; the authority is believed, as any client of TensorFlow Serving would."""
        return json.loads(self.text(method, path, body))  # type: ignore[no-any-return]

    def reload(self, request: Any) -> None:
        """A ``HandleReloadConfigRequest``."""
        credentials = grpc.ssl_channel_credentials((self.folder.parent / "ca.pem").read_bytes())
        options = (("grpc.ssl_target_name_override", DOMAIN),)
        with grpc.secure_channel(f"127.0.0.1:{self.ready()['grpc']}", credentials, options) as channel:
            method = channel.unary_unary(
                "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
                request_serializer=lambda message: message.SerializeToString(),
            )
            method(request, timeout=DEADLINE_S)

    def text(self, method: str, path: str, body: object = None) -> str:
        """The body of the answer to a REST request."""
        context = ssl.create_default_context(cafile=str(self.folder.parent / "ca.pem"))
        raw = socket.create_connection(("127.0.0.1", self.ready()["rest"]), DEADLINE_S)
        connection = HTTPSConnection(DOMAIN)
        connection.sock = context.wrap_socket(raw, server_hostname=DOMAIN)
        try:
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            return text
        finally:
            connection.close()


@dataclass
class World:
    """The owner and the machine; ``bundle`` is what the host received."""

    base: Path
    control: PlatformControl
    authority: CertificateAuthority
    keystore: SealedKeystore
    owner_key: Ed25519PrivateKey
    signing_key: RSAPrivateKey
    audit: AuditLog
    appraiser: Appraiser
    bundle: Path
    image: tuple[Image, Path]
    launched: list[Replica] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self, lifetime: int, port: int = 0) -> Iterator[ProvisioningServer]:
        """A provisioning server that accepts nobody yet."""
        server = ProvisioningServer(
            Address("127.0.0.1", port),
            server_name=SERVER_NAME,
            authority=self.authority,
            appraiser=self.appraiser,
            keystore=self.keystore,
            audit=self.audit,
            domain=DOMAIN,
            now=now,
            lifetime=lifetime,
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)

    def build(
        self,
        bundle: Path,
        port: int,
        model: ModelConfig = DIGITS,
        serving: ServingConfig = QUICK,
        listen: ListenConfig = ANY_PORTS,
    ) -> EnclaveIdentity:
        """An enclave that asks the provisioning server at ``port``."""
        spec = EnclaveSpec(
            domain=DOMAIN,
            models=(model,),
            provisioning_servers=(f"127.0.0.1:{port}",),
            provisioning_server_name=SERVER_NAME,
            ca_pem=self.authority.certificate_pem.decode(),
            serving=serving,
            listen=listen,
        )
        image, lies_in = self.image
        text = render(spec, image)
        manifest = parse_manifest(text.encode())
        signature = sign_manifest(manifest, measure(manifest), self.signing_key, date=datetime.date(2026, 11, 23))
        shutil.copytree(lies_in, bundle / FOLDER / "image", copy_function=os.link)
        (bundle / FOLDER / "server.json").write_bytes(spec.config().dump())
        (bundle / MANIFEST).write_text(text)
        (bundle / SIGSTRUCT).write_bytes(signature)
        return read_identity(bundle)

    def accept(self, server: ProvisioningServer, mr_enclave: bytes) -> None:
        """The owner's policy names this measurement from now on."""
        identity = Identity(name="digits replica", mr_enclave=mr_enclave, receives=("model/digits",))
        old = self.appraiser.policy
        policy = Policy(roots=old.roots, tcb_statuses=old.tcb_statuses, identities=(identity,))
        server.appraiser = Appraiser(policy, self.appraiser.collateral, now)

    def seal(self, version: int, source: Path = REPOSITORY / "examples" / "digits" / "openvino") -> None:
        seal(
            source,
            self.bundle / "models",
            name="digits",
            version=version,
            engine="openvino",
            keystore=self.keystore,
            signing_key=self.owner_key,
            now=now,
        )

    def folder(self, *versions: int) -> Path:
        """A replica's folder, with these versions in it."""
        folder = self.base / f"replica-{len(list(self.base.iterdir()))}"
        (folder / "models" / "digits").mkdir(parents=True)
        for version in versions:
            sealed = Path("models") / "digits" / str(version)
            shutil.copytree(self.bundle / sealed, folder / sealed)
        return folder

    def lay(self, folder: Path, version: int, place: int | None = None) -> Path:
        """As a host lays a version into a replica's folder while that runs: whole, or under another number."""
        target = folder / "models" / "digits" / str(place or version)
        aside = target.with_name(f".{target.name}.part")
        shutil.copytree(self.bundle / "models" / "digits" / str(version), aside)
        aside.rename(target)
        return target

    def launch(self, folder: Path, bundle: Path | None = None) -> Replica:
        bundle = bundle or self.bundle
        (folder / "enclave").symlink_to(bundle / "enclave")
        pid = self.control.launch(
            manifest=bundle / MANIFEST,
            sigstruct=bundle / SIGSTRUCT,
            cwd=folder,
            stdout=folder / "out",
            stderr=folder / "err",
        )
        self.launched.append(Replica(folder, pid, self.control))
        return self.launched[-1]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, Path]:
    folder = tmp_path_factory.mktemp("image") / "image"
    return build_image(folder), folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformControl]:
    folder = tmp_path_factory.mktemp("machine")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ensconce.platform.simulated.daemon",
            "--home",
            folder / "home",
            "--socket",
            folder / "s",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(ensconce.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
    )
    control = PlatformControl(folder / "s")
    control.wait(DEADLINE_S)
    yield control
    process.send_signal(signal.SIGTERM)
    process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    machine: PlatformControl,
    signing_key: RSAPrivateKey,
    image: tuple[Image, Path],
) -> Iterator[World]:
    base = tmp_path_factory.mktemp("world")
    status = machine.status()
    authority = CertificateAuthority.create("the owner", now())
    (base / "ca.pem").write_bytes(authority.certificate_pem)
    (base / "bundle" / "models").mkdir(parents=True)
    owner_key = Ed25519PrivateKey.generate()
    nobody = Identity(name="nobody", mr_enclave=bytes(32), receives=("model/digits",))
    policy = Policy(roots=(status.root,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(nobody,))
    origin = ServerOrigin(status.pccs, policy.roots)
    collateral = CollateralCache(FolderStore(base / "state"), origin, now, roots=policy.roots)
    world = World(
        base=base,
        control=machine,
        authority=authority,
        keystore=SealedKeystore.create(FolderPlace(base / "keystore"), new_key_file(base / "unlock.key")),
        owner_key=owner_key,
        signing_key=signing_key,
        audit=AuditLog.open(base / "audit", owner_key, now),
        appraiser=Appraiser(policy, collateral, now),
        bundle=base / "bundle",
        image=image,
    )
    for version in (1, 2, 3, 4):
        world.seal(version)
    yield world
    for replica in world.launched:
        if replica.status() is None:
            machine.signal(replica.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[ProvisioningServer]:
    """The owner's server, which accepts the enclave in the bundle."""
    with world.serving(lifetime=24 * 3600) as server:
        world.accept(server, world.build(world.bundle, server.port).mr_enclave)
        yield server


# Test modules cannot import this one (importmode=importlib), so its helper comes as a fixture.
@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], str], Any]:
    """Polls until something is so, and gives it."""
    return _until
