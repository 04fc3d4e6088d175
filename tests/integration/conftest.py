"""What tests share that run the owner's server: a simulated vendor, its PCCS, a deployment, the server, a replica."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import apply_policy, sign_policy
from ensconce.evidence.report import SgxReport
from ensconce.keys import get_private_key
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import Pccs
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import Provisioned, provision

SERVER_NAME = "provisioning.digits.example.test"


def now() -> int:
    return int(time.time())


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now() - 3600)


@pytest.fixture(scope="session")
def pccs(vendor: SimulatedVendor, find_port: Callable[[], int]) -> Iterator[int]:
    """The port of a PCCS that serves the vendor's collateral."""
    port, begun, stop = find_port(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        server = await serve_http("127.0.0.1", port, Pccs(vendor, now).get)
        loops.append(asyncio.get_running_loop())
        begun.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert begun.wait(30)
    yield port
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def describe(pccs: int) -> Callable[..., dict[str, Any]]:
    """Makes the deployment file of a server that listens on the first of ``ports``, more of whose kind may be there."""

    def make(ports: Sequence[int], status: int | None = None, **more: Any) -> dict[str, Any]:
        return {
            "version": 1,
            "service": {"domain": "digits.example.test", "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
            "replicas": 1,
            "platform": {"kind": "simulated", "pccs": f"127.0.0.1:{pccs}"},
            "provisioning": {
                "listen": f"127.0.0.1:{ports[0]}",
                "servers": [f"127.0.0.1:{port}" for port in ports],
                "server_name": SERVER_NAME,
                "limits": {"address_rate": 1000.0, "address_burst": 5000},
                **({} if status is None else {"status": f"127.0.0.1:{status}"}),
            },
            "models": [{"name": "digits"}],
            **more,
        }

    return make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, describe: Callable[..., dict[str, Any]]) -> Path:
    """An owner's folder to copy: her RSA key takes a second to find."""
    return OwnerFolder.create(tmp_path_factory.mktemp("made") / "owner", Deployment.check(describe([1]))).path


@pytest.fixture
def owner_of(made: Path, tmp_path: Path, describe: Callable[..., dict[str, Any]]) -> Callable[..., OwnerFolder]:
    """Makes the folder of an owner whose server has these ports; once for each test."""

    def make(ports: Sequence[int], status: int | None = None) -> OwnerFolder:
        folder = shutil.copytree(made, tmp_path / "owner")
        (folder / "ensconce.yaml").write_text(yaml.safe_dump(describe(ports, status), sort_keys=False))
        return OwnerFolder.open(folder)

    return make


@pytest.fixture
def ask(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> Callable[..., Provisioned]:
    """Asks for keys as a replica does, with a sound enclave's quote."""
    report = sound_report(vendor)

    def ask(
        owner: OwnerFolder,
        ports: Sequence[int],
        *models: tuple[str, int],
        secrets: Sequence[str] = (),
        timeout: float = 30.0,
    ) -> Provisioned:
        return provision(
            [f"127.0.0.1:{port}" for port in ports],
            SERVER_NAME,
            owner.ca_file.read_bytes(),
            lambda data: make_quote(vendor, replace(report, report_data=data)),
            "digits.example.test",
            models,
            secrets=secrets,
            timeout=timeout,
        )

    return ask


@pytest.fixture
def put_in_force(vendor: SimulatedVendor) -> Callable[[OwnerFolder, int, str], None]:
    """Signs and applies a policy that gives the sound enclave what it names, such as ``model/digits``."""

    def put(owner: OwnerFolder, serial: int, receives: str) -> None:
        owner.policy_file.write_text(
            f"version: 1\nserial: {serial}\nroots: ['{vendor.root_name}']\ntcb_statuses: [UpToDate]\nidentities:\n"
            f"  - name: digits replica\n    mr_enclave: '{'11' * 32}'\n    receives: [{receives}]\n"
        )
        key = get_private_key(owner.keystore(), "signing/owner", "ed25519")
        apply_policy(owner, sign_policy(owner.policy_file, key))

    return put


@dataclass
class Server:
    """The owner's server, as the process that the command starts."""

    owner: OwnerFolder
    port: int
    status: int
    replica: Callable[..., Provisioned]
    environment: dict[str, str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ensconce", "provision", "serve", "--log-format", "json"),
                *("--owner", str(self.owner.path)),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.lines.clear()
        listening = threading.Event()
        threading.Thread(target=self._read, args=(self.process, listening), daemon=True).start()
        assert listening.wait(60), self.lines

    def _read(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if line == "interrupted\n":  # the command's last word, after the server's
                continue
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "listening":
                listening.set()

    def ask(self, *models: tuple[str, int], **more: Any) -> Provisioned:
        return self.replica(self.owner, [self.port], *models, **more)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metric(self, name: str) -> float:
        text = self.get("/metrics")[1].decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def memory(self) -> int:
        """Resident bytes of the process that serves."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1])


@pytest.fixture
def server_of(tmp_path: Path, ask: Callable[..., Provisioned]) -> Iterator[Callable[[OwnerFolder, int, int], Server]]:
    """Makes the server of an owner's folder, its port and that of its status; none outlives the test."""
    made: list[Server] = []

    def make(owner: OwnerFolder, port: int, status: int) -> Server:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        made.append(Server(owner, port, status, ask, environment))
        return made[-1]

    yield make
    for server in made:
        server.kill()
