"""Two provisioning servers, real processes, share one deployment; one dies while it releases, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from cryptography import x509

from ensconce.audit.remote import RemoteLog
from ensconce.audit.witness import watch
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import RefusedError, UnreachableError
from ensconce.provisioning.client import Provisioned


class Cluster(Protocol):
    def url(self, database: str) -> str: ...
    def new_database(self) -> str: ...


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"kind": "sqlite", "path": str(tmp_path / "state.db")}
    cluster: Cluster = request.getfixturevalue("cluster")
    (tmp_path / "url").touch(mode=0o600)
    (tmp_path / "url").write_text(cluster.url(cluster.new_database()))
    return {"kind": "postgresql", "url_file": str(tmp_path / "url")}


@pytest.fixture
def servers(
    tmp_path: Path,
    state: dict[str, str],
    find_port: Callable[[], int],
    describe: Callable[..., dict[str, Any]],
    put_in_force: Callable[[OwnerFolder, int, str], None],
    server_of: Callable[[OwnerFolder, int, int], Any],
) -> list[Any]:
    """Two provisioning servers, each on a machine of its own, as far as a folder makes one."""
    ports, status = [find_port(), find_port()], [find_port(), find_port()]
    folders = [tmp_path / "one", tmp_path / "two"]
    owner = OwnerFolder.create(folders[0], Deployment.check(describe(ports, status[0], state=state)))
    for version in (1, 2):
        owner.keystore().put(f"model/digits/{version}", os.urandom(16), kind="wrap")
    put_in_force(owner, 1, "model/digits")
    shutil.copytree(folders[0], folders[1])
    text = yaml.safe_dump(describe(ports[::-1], status[1], state=state), sort_keys=False)
    (folders[1] / "ensconce.yaml").write_text(text)
    return [server_of(OwnerFolder.open(folder), *each) for folder, *each in zip(folders, ports, status, strict=True)]


def serial(granted: Provisioned) -> str:
    return f"{x509.load_pem_x509_certificate(granted.certificate_chain).serial_number:x}"


def test_one_dies_and_the_other_goes_on(servers: list[Any], ask: Callable[..., Provisioned], tmp_path: Path) -> None:
    chance = random.Random(7)
    received: list[Provisioned] = []
    going = threading.Event()

    def get(ports: list[int], version: int = 1) -> Provisioned:
        return ask(servers[0].owner, ports, ("digits", version))

    def ask_on(ports: list[int]) -> None:
        while going.is_set():
            with contextlib.suppress(UnreachableError):
                received.append(get(ports))

    def more(count: int) -> None:
        wanted, deadline = len(received) + count, time.monotonic() + 60
        while len(received) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        assert len(received) >= wanted

    for server in servers:
        server.start()
    ports = [server.port for server in servers]
    logs = [RemoteLog(f"http://127.0.0.1:{server.status}") for server in servers]
    going.set()
    # Half of the replicas ask the one first, half the other; who gets no answer asks the next.
    clients = [threading.Thread(target=ask_on, args=(order,)) for order in (ports, ports[::-1]) * 2]
    for client in clients:
        client.start()
    try:
        more(8)
        assert get(ports[:1], 2).secrets.keys() == get(ports[1:], 2).secrets.keys() == {"model/digits/2"}
        key = servers[0].owner.public_key()
        assert watch(logs[0], tmp_path / "kept", key).earlier is None
        time.sleep(chance.uniform(0.0, 0.1))
        servers[0].kill()
        more(8)  # the other goes on
        # Whoever watches the log through the other server sees the same log, grown.
        sighting = watch(logs[1], tmp_path / "kept", key)
        assert sighting.earlier is not None
        assert sighting.head.size >= sighting.earlier.size + 8
        # A key that is retired on the one machine is released by the other no more.
        servers[0].owner.retire_model("digits", 2)
        with pytest.raises(RefusedError, match=r"key\.retired"):
            get(ports[1:], 2)
    finally:
        going.clear()
        for client in clients:
            client.join(60)
    for server in servers:
        server.kill()
        server.owner.audit_log(server.owner.keystore())  # as the next writer does: settles what was left
    head, entries = servers[0].owner.verified_log()
    assert (head, entries) == servers[1].owner.verified_log()
    released = {entry.fields["certificate_serial"] for entry in entries if entry.event == "key.released"}
    assert len(received) >= 16
    assert {serial(each) for each in received} <= released
