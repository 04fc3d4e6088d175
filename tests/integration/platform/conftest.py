"""A real daemon, real sockets, and tiny enclaves: a Python script, its manifest, its signature."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import rsa

import ensconce
from ensconce.enclave.sign import sign_manifest
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.control import EnclaveEntry, PlatformControl
from ensconce.platform.simulated.measurement import measure

SOURCES = str(Path(ensconce.__file__).parents[1])
PYTHON = os.path.realpath(sys.executable)
DEADLINE_S = 60.0


@dataclass
class EnclaveFolder:
    """An owner's enclave: ``enclave/main.py``, ``enclave/server.manifest.sgx`` and ``enclave/server.sig``."""

    root: Path
    key: rsa.RSAPrivateKey
    argv: list[str] = field(default_factory=lambda: ["python3", "-I", "-B", "enclave/main.py", "measured argument"])
    env: dict[str, str] = field(default_factory=lambda: {"MEASURED": "yes"})
    sgx: dict[str, object] = field(default_factory=dict)
    entrypoint: str = PYTHON

    @property
    def manifest(self) -> Path:
        return self.root / "enclave" / "server.manifest.sgx"

    @property
    def sigstruct(self) -> Path:
        return self.root / "enclave" / "server.sig"

    @property
    def script(self) -> Path:
        return self.root / "enclave" / "main.py"

    def text(self) -> str:
        files = [(PYTHON, Path(PYTHON)), ("enclave/main.py", self.script)]
        trusted = [
            {"uri": f"file:{name}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for name, path in files
        ]
        return tomli_w.dumps(
            {
                "libos": {"entrypoint": self.entrypoint},
                "loader": {"argv": self.argv, "env": self.env},
                "sgx": {"isvprodid": 7, "isvsvn": 3, "trusted_files": trusted, **self.sgx},
            }
        )

    def sign(self) -> bytes:
        """Write manifest and signature; returns the measurement."""
        self.manifest.write_text(self.text())
        manifest = parse_manifest(self.manifest.read_bytes())
        self.sigstruct.write_bytes(
            sign_manifest(manifest, measure(manifest), self.key, date=datetime.date(2026, 11, 22))
        )
        return measure(manifest)


@pytest.fixture
def make_enclave(tmp_path: Path, signing_key: rsa.RSAPrivateKey) -> Callable[..., EnclaveFolder]:
    def make(script: str, name: str = "host", **changes: object) -> EnclaveFolder:
        enclave = EnclaveFolder(tmp_path / name, signing_key, **changes)  # type: ignore[arg-type]
        enclave.script.parent.mkdir(parents=True)
        # The enclave reads the sources of the repository; a real one has them in its image, all of them trusted.
        enclave.script.write_text(f"import sys\nsys.path.insert(0, {SOURCES!r})\n{script}")
        enclave.sign()
        return enclave

    return make


@dataclass
class Machine:
    """A daemon's process, and how to talk to it."""

    process: subprocess.Popen[bytes]
    socket: Path
    control: PlatformControl
    home: Path

    def launch(self, enclave: EnclaveFolder) -> int:
        return self.control.launch(
            manifest=enclave.manifest,
            sigstruct=enclave.sigstruct,
            cwd=enclave.root,
            stdout=enclave.root / "out",
            stderr=enclave.root / "err",
        )

    def entry(self, pid: int) -> EnclaveEntry:
        return next(entry for entry in self.control.list() if entry.pid == pid)

    def wait_for_end(self, pid: int) -> int:
        _until(lambda: not self.entry(pid).running)
        status = self.entry(pid).exit_status
        assert status is not None
        return status

    def run(self, enclave: EnclaveFolder) -> dict[str, object]:
        """Launch, wait for the end, and read the JSON that the enclave printed."""
        pid = self.launch(enclave)
        assert self.wait_for_end(pid) == 0, (enclave.root / "err").read_text()
        answer: dict[str, object] = json.loads((enclave.root / "out").read_text())
        return answer


def _until(condition: Callable[[], object]) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _start_daemon(
    home: Path, socket: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ensconce.platform.simulated.daemon", "--home", home, "--socket", socket, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES, **(env or {})},
        stderr=subprocess.PIPE,
    )


# Test modules cannot import this one (importmode=importlib), so its helpers come as fixtures.
@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], None]:
    return _until


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    return _alive


@pytest.fixture(scope="session")
def start_daemon() -> Callable[..., subprocess.Popen[bytes]]:
    return _start_daemon


@pytest.fixture(scope="session")
def sources() -> str:
    return SOURCES


@pytest.fixture(scope="session")
def connect() -> Callable[[subprocess.Popen[bytes], Path], Machine]:
    """Talk to a daemon that was started by other means."""

    def connect(process: subprocess.Popen[bytes], path: Path) -> Machine:
        control = PlatformControl(path)
        control.wait(DEADLINE_S)
        return Machine(process, path, control, path.parent / "home")

    return connect


@pytest.fixture
def daemons() -> Iterator[Callable[..., Machine]]:
    """Start daemons; whatever still runs at the end is ended, and its enclaves with it."""
    machines: list[Machine] = []

    def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Machine:
        socket = folder / "platform.sock"
        process = _start_daemon(folder / "home", socket, *arguments, env=env)
        machine = Machine(process, socket, PlatformControl(socket), folder / "home")
        machines.append(machine)
        machine.control.wait(DEADLINE_S)
        return machine

    yield start
    for machine in machines:
        if machine.process.returncode is None:
            machine.process.send_signal(signal.SIGTERM)
            machine.process.communicate(timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One daemon for all tests of a module; its environment holds what no enclave may see."""
    folder = tmp_path_factory.mktemp("machine-with-a-name-that-makes-the-path-longer-than-a-socket-address-may-be")
    process = _start_daemon(folder / "home", folder / "platform.sock", env={"HOST_VARIABLE": "of the host's choosing"})
    control = PlatformControl(folder / "platform.sock")
    control.wait(DEADLINE_S)
    yield Machine(process, folder / "platform.sock", control, folder / "home")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
