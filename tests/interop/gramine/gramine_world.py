"""An owner with a sealed model, and replicas under ``gramine-direct``: for these tests, and for a benchmark.

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
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gramine_attestation import AttestationFiles

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.enclave.build import EnclaveIdentity, EnclaveSpec, build_enclave
from ensconce.enclave.config import ModelConfig
from ensconce.enclave.sign import new_signing_key
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.keys import FolderPlace, SealedKeystore
from ensconce.keys.unlock import new_key_file
from ensconce.models.seal import seal
from ensconce.platform.simulated.launcher import Launchable
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import from_proto, to_proto

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "openvino"
DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.example.test"
DEADLINE_S = 120.0
_KEPT = ("PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR")


def now() -> int:
    return int(time.time())


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

    @contextlib.contextmanager
    def predicting(self) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
        """Predictions over gRPC, on one connection: a model's name, and its inputs by their names."""
        authority = (self.folder.parent / "ca.pem").read_bytes()
        options = (("grpc.ssl_target_name_override", DOMAIN),)
        address = f"127.0.0.1:{self.ready()['grpc']}"
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options) as channel:
            method = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Predict",
                request_serializer=PredictRequest.SerializeToString,
                response_deserializer=PredictResponse.FromString,
            )

            def predict(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
                request = PredictRequest()
                request.model_spec.name = name
                for key, array in inputs.items():
                    request.inputs[key].CopyFrom(to_proto(array))
                answer = method(request, timeout=DEADLINE_S)
                return {key: from_proto(tensor) for key, tensor in answer.outputs.items()}

            yield predict

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

    def build(self, *names: str, **changes: Any) -> EnclaveIdentity:
        """An enclave for models of these names, ``digits`` without a word, on Gramine unless ``changes`` says so."""
        spec = EnclaveSpec(
            domain=DOMAIN,
            models=tuple(ModelConfig(name=name) for name in names or ("digits",)),
            provisioning_servers=(f"{SERVER_NAME}:{self.server.port}",),
            provisioning_server_name=SERVER_NAME,
            ca_pem=self.authority.certificate_pem.decode(),
            platform="gramine",
            engine_threads=2,
            hosts={SERVER_NAME: "127.0.0.1"},
        )
        return build_enclave(self.bundle, replace(spec, **changes), new_signing_key(), now)

    def accept(self, *measurements: bytes, models: Sequence[str] = ("digits",)) -> None:
        """The owner's policy names these measurements from now on."""
        receives = tuple(f"model/{name}" for name in models)
        identities = tuple(
            Identity(name=f"replica {number}", mr_enclave=each, receives=receives)
            for number, each in enumerate(measurements)
        )
        old = self.server.appraiser
        policy = Policy(roots=old.policy.roots, tcb_statuses=old.policy.tcb_statuses, identities=identities)
        self.server.appraiser = Appraiser(policy, old.collateral, now)

    def folder(self) -> Path:
        """A replica's folder, with a copy of the bundle in it."""
        folder = self.base / f"replica-{len(list(self.base.iterdir()))}"
        shutil.copytree(self.bundle, folder)
        return folder

    def speak_for(self, folder: Path) -> None:
        """Let the simulated CPU make quotes, in ``folder``, of the enclave that is signed there."""
        signed = parse_sigstruct((folder / "enclave" / "server.sig").read_bytes())
        enclave = Launchable(folder, (), {}, folder, signed.mr_enclave, signed)
        self.mounted.append(
            AttestationFiles(
                folder / "attestation",
                lambda data: make_quote(self.vendor, enclave.report(self.vendor.cpu_svn, data)),
            )
        )

    def attest(self, folder: Path) -> None:
        """Let Gramine's program in ``folder`` have such quotes: this test's lines in its manifest."""
        self.speak_for(folder)
        manifest = folder / "enclave" / "server.manifest"
        # File by file: Gramine's own keys/ stays where keys go.
        mounts = "".join(
            f'  {{ path = "/dev/attestation/{name}", uri = "file:attestation/{name}" }},\n'
            for name in ("user_report_data", "quote")
        )
        text = manifest.read_text()
        for old, new in (
            ("fs.mounts = [\n", f"fs.mounts = [\n{mounts}"),
            ("sgx.allowed_files = [", 'sgx.allowed_files = [\n  "file:attestation/",'),
        ):
            assert old in text
            text = text.replace(old, new, 1)
        manifest.write_text(text)

    def start(self, folder: Path, *command: str | Path, **environment: str) -> Process:
        """Start a program in ``folder``: without a word, what the manifest there says under ``gramine-direct``."""
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            begin = time.time()
            child = subprocess.Popen(
                command or ("gramine-direct", "enclave/server"),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={name: os.environ[name] for name in _KEPT if name in os.environ} | environment,
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


def with_program(manifest: str, program: str) -> str:
    """The manifest with a program of Python in the place of the replica."""
    replica = '  "-m",\n  "ensconce.enclave.early",\n  "enclave/server.json",\n'
    assert replica in manifest
    return manifest.replace(replica, f'  "-c",\n  {json.dumps(program)},\n', 1)


def passes_gramine_manifest(bundle: Path) -> None:
    """``gramine-manifest`` takes every key, and changes no value; it adds defaults of ``sgx``."""
    rendered, out = bundle / "enclave" / "server.manifest", bundle / "checked.manifest"
    subprocess.run(["gramine-manifest", rendered, out], check=True, cwd=bundle, timeout=DEADLINE_S)
    before, after = (tomllib.loads(path.read_text()) for path in (rendered, out))
    out.unlink()
    after["sgx"] = {key: after["sgx"][key] for key in before["sgx"]}
    assert after == before


@contextlib.contextmanager
def owner_in(base: Path, vendor: SimulatedVendor) -> Iterator[Owner]:
    """An owner whose policy accepts nobody yet, and her server; everything ends with it."""
    authority = CertificateAuthority.create("the owner", now())
    (base / "ca.pem").write_bytes(authority.certificate_pem)
    keystore = SealedKeystore.create(FolderPlace(base / "keystore"), new_key_file(base / "unlock.key"))
    key = Ed25519PrivateKey.generate()
    audit = AuditLog.open(base / "audit", key, now)
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
    bundle = base / "bundle"
    (bundle / "models").mkdir(parents=True)
    world = Owner(base, authority, keystore, key, audit, server, vendor, bundle)
    try:
        yield world
    finally:
        world.close()
        server.shutdown()
        serving.join(DEADLINE_S)
