"""Two provisioning servers, real processes, share one deployment; one dies while it releases, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from cryptography import x509

from ensconce.audit.remote import RemoteLog
from ensconce.audit.witness import watch
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import apply_policy, sign_policy
from ensconce.errors import RefusedError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.keys import get_private_key
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import Pccs
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import Provisioned, provision

DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.digits.example.test"


class Cluster(Protocol):
    def url(self, database: str) -> str: ...
    def new_database(self) -> str: ...


def now() -> int:
    return int(time.time())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now())


@pytest.fixture(scope="module")
def pccs(vendor: SimulatedVendor) -> Iterator[int]:
    port, loop = free_port(), asyncio.new_event_loop()
    server = loop.run_until_complete(serve_http("127.0.0.1", port, Pccs(vendor, now).get))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield port
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"kind": "sqlite", "path": str(tmp_path / "state.db")}
    cluster: Cluster = request.getfixturevalue("cluster")
    (tmp_path / "url").touch(mode=0o600)
    (tmp_path / "url").write_text(cluster.url(cluster.new_database()))
    return {"kind": "postgresql", "url_file": str(tmp_path / "url")}


class Server:
    """A provisioning server on its own machine, as far as a folder makes one."""

    def __init__(self, folder: Path, port: int, status: int, cache: Path) -> None:
        self.owner = OwnerFolder.open(folder)
        self.port = port
        self.log = RemoteLog(f"http://127.0.0.1:{status}")
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "ensconce", "provision", "serve", "--owner", str(self.owner.path)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environment)

    def wait_until_ready(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if "provisioning server on port" in line:
                break
        else:
            pytest.fail(said)
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def deployment(pccs: int, ports: list[int], status: int, state: dict[str, str]) -> dict[str, Any]:
    return {
        "version": 1,
        "service": {"domain": DOMAIN, "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
        "replicas": 1,
        "platform": {"kind": "simulated", "pccs": f"127.0.0.1:{pccs}"},
        "provisioning": {
            "listen": f"127.0.0.1:{ports[0]}",
            "servers": [f"127.0.0.1:{port}" for port in ports],
            "server_name": SERVER_NAME,
            "status": f"127.0.0.1:{status}",
            "limits": {"address_rate": 1000.0, "address_burst": 5000},
        },
        "models": [{"name": "digits"}],
        "state": state,
    }


@pytest.fixture
def servers(tmp_path: Path, vendor: SimulatedVendor, pccs: int, state: dict[str, str]) -> Iterator[list[Server]]:
    ports, status = [free_port(), free_port()], [free_port(), free_port()]
    folders = [tmp_path / "one", tmp_path / "two"]
    owner = OwnerFolder.create(folders[0], Deployment.check(deployment(pccs, ports, status[0], state)))
    keystore = owner.keystore()
    for version in (1, 2):
        keystore.put(f"model/digits/{version}", os.urandom(16), kind="wrap")
    owner.policy_file.write_text(
        f"version: 1\nroots: ['{vendor.root_name}']\ntcb_statuses: [UpToDate]\nidentities:\n"
        f"  - name: digits replica\n    mr_enclave: '{'11' * 32}'\n    receives: [model/digits]\n"
    )
    apply_policy(owner, sign_policy(owner.policy_file, get_private_key(keystore, "signing/owner", "ed25519")))
    shutil.copytree(folders[0], folders[1])
    text = yaml.safe_dump(deployment(pccs, ports[::-1], status[1], state), sort_keys=False)
    (folders[1] / "ensconce.yaml").write_text(text)
    made = [Server(*each, tmp_path / "cache") for each in zip(folders, ports, status, strict=True)]
    yield made
    for server in made:
        server.kill()


def serial(granted: Provisioned) -> str:
    return f"{x509.load_pem_x509_certificate(granted.certificate_chain).serial_number:x}"


def test_one_dies_and_the_other_goes_on(
    servers: list[Server], vendor: SimulatedVendor, sound_report: Callable[..., SgxReport], tmp_path: Path
) -> None:
    chance = random.Random(7)
    report = sound_report(vendor)
    authority = servers[0].owner.ca_file.read_bytes()
    received: list[Provisioned] = []
    going = threading.Event()

    def ask(ports: list[int], version: int = 1) -> Provisioned:
        return provision(
            [f"127.0.0.1:{port}" for port in ports],
            SERVER_NAME,
            authority,
            lambda data: make_quote(vendor, replace(report, report_data=data)),
            DOMAIN,
            [("digits", version)],
            timeout=5.0,
        )

    def ask_on(ports: list[int]) -> None:
        while going.is_set():
            with contextlib.suppress(UnreachableError):
                received.append(ask(ports))

    def more(count: int) -> None:
        wanted, deadline = len(received) + count, time.monotonic() + 20
        while len(received) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        assert len(received) >= wanted

    for server in servers:
        server.start()
    for server in servers:
        server.wait_until_ready()
    ports = [server.port for server in servers]
    going.set()
    # Half of the replicas ask the one first, half the other; who gets no answer asks the next.
    clients = [threading.Thread(target=ask_on, args=(order,)) for order in (ports, ports[::-1]) * 2]
    for client in clients:
        client.start()
    try:
        more(8)
        assert ask(ports[:1], 2).secrets.keys() == ask(ports[1:], 2).secrets.keys() == {"model/digits/2"}
        key = servers[0].owner.public_key()
        assert watch(servers[0].log, tmp_path / "kept", key).earlier is None
        time.sleep(chance.uniform(0.0, 0.1))
        servers[0].kill()
        more(8)  # the other goes on
        # Whoever watches the log through the other server sees the same log, grown.
        sighting = watch(servers[1].log, tmp_path / "kept", key)
        assert sighting.earlier is not None
        assert sighting.head.size >= sighting.earlier.size + 8
        # A key that is retired on the one machine is released by the other no more.
        servers[0].owner.retire_model("digits", 2)
        with pytest.raises(RefusedError, match=r"key\.retired"):
            ask(ports[1:], 2)
    finally:
        going.clear()
        for client in clients:
            client.join(10)
    for server in servers:
        server.kill()
        server.owner.audit_log(server.owner.keystore())  # as the next writer does: settles what was left
    head, entries = servers[0].owner.verified_log()
    assert (head, entries) == servers[1].owner.verified_log()
    released = {entry.fields["certificate_serial"] for entry in entries if entry.event == "key.released"}
    assert len(received) >= 16
    assert {serial(each) for each in received} <= released
