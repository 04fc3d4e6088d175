"""A machine with Gramine 1.9 and no SGX, an owner with a sealed model, and replicas under ``gramine-direct``.

Everything is as on a machine with SGX, but for what the CPU does: ``gramine-direct`` checks trusted files and opens
encrypted ones as ``gramine-sgx`` does, protects nothing, and has no quotes. Those come from a simulated CPU, over a
file system in the place of Gramine's own files. The lines of the manifest that put it there are this test's alone.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass, field, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.enclave.build import EnclaveIdentity, EnclaveSpec, build_enclave
from ensconce.enclave.config import ModelConfig
from ensconce.enclave.sign import new_signing_key
from ensconce.evidence.report import SgxReport
from ensconce.keys import FolderPlace, SealedKeystore
from ensconce.keys.unlock import new_key_file
from ensconce.models.seal import seal
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority

sys.path.insert(0, str(Path(__file__).parent))
from gramine_attestation import AttestationFiles, mountable

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "openvino"
DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.example.test"
DEADLINE_S = 120.0
_KEPT = ("PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR")


def now() -> int:
    return int(time.time())


@pytest.fixture(scope="session")
def gramine() -> Path:
    """The folder with Gramine's programs; they are on the PATH from here on."""
    prefix = os.environ.get("ENSCONCE_GRAMINE_PREFIX")
    if not prefix:
        pytest.skip("ENSCONCE_GRAMINE_PREFIX names no Gramine")
    found = [path for path in (Path(prefix), *sorted(Path(prefix).iterdir())) if (path / "bin/gramine-direct").exists()]
    if not found:
        pytest.skip(f"no bin/gramine-direct in {prefix} or in a folder of it")
    if (reason := mountable()) is not None:
        pytest.skip(reason)
    programs = found[0] / "bin"
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    return programs


@dataclass(frozen=True)
class Source:
    """Collateral straight from the vendor."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        """Nothing better is to be had."""


@dataclass
class Process:
    """A program under ``gramine-direct``, in a folder of its own."""

    folder: Path
    child: subprocess.Popen[bytes]
    started: float

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines() if line.startswith("{")]

    def errors(self) -> str:
        return (self.folder / "err").read_text()

    def ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.child.poll() is None, self.errors() + (self.folder / "out").read_text()
            with contextlib.suppress(FileNotFoundError):
                return json.loads((self.folder / "ready.json").read_text())  # type: ignore[no-any-return]
            time.sleep(0.005)
        raise AssertionError("the replica is not ready: " + self.errors())

    def rest(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A request over TLS, as any client of TensorFlow Serving would make it."""
        context = ssl.create_default_context(cafile=str(self.folder.parent / "ca.pem"))
        raw = socket.create_connection(("127.0.0.1", self.ready()["rest"]), DEADLINE_S)
        connection = HTTPSConnection(DOMAIN)
        connection.sock = context.wrap_socket(raw, server_hostname=DOMAIN)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)  # type: ignore[no-any-return]

    def stop(self) -> float:
        """Ask for its end, as Kubernetes does; seconds until it came."""
        begin = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(DEADLINE_S)
        return time.monotonic() - begin


@dataclass
class Owner:
    """The owner, her provisioning server, and the machine that her bundle went to."""

    base: Path
    authority: CertificateAuthority
    keystore: SealedKeystore
    key: Ed25519PrivateKey
    audit: AuditLog
    server: ProvisioningServer
    vendor: SimulatedVendor
    report: Callable[..., SgxReport]
    bundle: Path
    running: list[Process] = field(default_factory=list)
    mounted: list[AttestationFiles] = field(default_factory=list)

    def seal(self, source: Path = DIGITS, name: str = "digits", version: int = 1) -> None:
        seal(
            source,
            self.bundle / "models",
            name=name,
            version=version,
            engine="openvino",
            keystore=self.keystore,
            signing_key=self.key,
            now=now,
        )

    def build(self, name: str = "digits", **changes: Any) -> EnclaveIdentity:
        spec = EnclaveSpec(
            domain=DOMAIN,
            models=(ModelConfig(name=name),),
            provisioning_servers=(f"{SERVER_NAME}:{self.server.port}",),
            provisioning_server_name=SERVER_NAME,
            ca_pem=self.authority.certificate_pem.decode(),
            platform="gramine",
            engine_threads=2,
            hosts={SERVER_NAME: "127.0.0.1"},
        )
        return build_enclave(self.bundle, replace(spec, **changes), new_signing_key(), now)

    def accept(self, mr_enclave: bytes, name: str = "digits") -> None:
        """The owner's policy names this measurement from now on."""
        identity = Identity(name="replica", mr_enclave=mr_enclave, receives=(f"model/{name}",))
        old = self.server.appraiser
        policy = Policy(roots=old.policy.roots, tcb_statuses=old.policy.tcb_statuses, identities=(identity,))
        self.server.appraiser = Appraiser(policy, old.collateral, now)

    def folder(self) -> Path:
        """A replica's folder, with a copy of the bundle in it."""
        folder = self.base / f"replica-{len(list(self.base.iterdir()))}"
        shutil.copytree(self.bundle, folder)
        return folder

    def attest(self, folder: Path, identity: EnclaveIdentity) -> None:
        """Let the simulated CPU speak for what is started in ``folder``: its files, and this test's line for them."""
        report = self.report(
            self.vendor,
            mr_enclave=identity.mr_enclave,
            mr_signer=identity.mr_signer,
            isv_prod_id=identity.isv_prod_id,
            isv_svn=identity.isv_svn,
        )
        self.mounted.append(
            AttestationFiles(
                folder / "attestation", lambda data: make_quote(self.vendor, replace(report, report_data=data))
            )
        )
        # File by file: Gramine's own keys/ stays where keys go.
        mounts = "".join(
            f'  {{ path = "/dev/attestation/{name}", uri = "file:attestation/{name}" }},\n'
            for name in ("user_report_data", "quote")
        )
        manifest = folder / "enclave" / "server.manifest"
        text = manifest.read_text()
        for old, new in (
            ("fs.mounts = [\n", f"fs.mounts = [\n{mounts}"),
            ("sgx.allowed_files = [\n", 'sgx.allowed_files = [\n  "file:attestation/",\n'),
        ):
            assert old in text
            text = text.replace(old, new, 1)
        manifest.write_text(text)

    def start(self, folder: Path, program: str = "enclave/server") -> Process:
        """Start what the folder's manifest says under ``gramine-direct``."""
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            begin = time.time()
            child = subprocess.Popen(
                ["gramine-direct", program],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
            )
        process = Process(folder, child, begin)
        self.running.append(process)
        return process

    def close(self) -> None:
        for process in self.running:
            process.child.kill()
            process.child.wait(DEADLINE_S)
        for files in self.mounted:
            files.close()


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now())


@pytest.fixture
def owner(
    tmp_path: Path, gramine: Path, vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]
) -> Iterator[Owner]:
    authority = CertificateAuthority.create("the owner", now())
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "unlock.key"))
    key = Ed25519PrivateKey.generate()
    audit = AuditLog.open(tmp_path / "audit", key, now)
    nobody = Identity(name="nobody", mr_enclave=bytes(32), receives=("model/digits",))
    policy = Policy(roots=(vendor.root_name,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(nobody,))
    server = ProvisioningServer(
        Address("127.0.0.1", 0),
        server_name=SERVER_NAME,
        authority=authority,
        appraiser=Appraiser(policy, Source(vendor.collateral(now())), now),
        keystore=keystore,
        audit=audit,
        domain=DOMAIN,
        now=now,
    )
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    bundle = tmp_path / "bundle"
    (bundle / "models").mkdir(parents=True)
    world = Owner(tmp_path, authority, keystore, key, audit, server, vendor, sound_report, bundle)
    try:
        yield world
    finally:
        world.close()
        server.shutdown()
        serving.join(DEADLINE_S)
