"""A model's key is rotated while clients predict: a new version beside the old, a roll, and the old key is gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.client.predict import Client
from ensconce.demo.stage import DOMAIN, Stage, processes_below
from ensconce.errors import EnsconceError, InputError

WaitFor = Callable[[Callable[[], object], str], None]
Status = Callable[[Stage], dict[str, Any]]
PIXELS = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1) % 16


@pytest.fixture(scope="module")
def own(prepared: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A copy of the whole stage, because here the owner's folder changes; its host is up."""
    root = tmp_path_factory.mktemp("rotation") / "stage"
    shutil.copytree(prepared.root, root, symlinks=True, ignore=shutil.ignore_patterns("host", "*.sock"))
    stage = Stage(root, prepared.ports)
    shutil.copytree(stage.owner / "bundle", stage.host)
    stage.provision_serve("--owner", str(stage.owner))
    stage.run("up", "--host", str(stage.host), "--json", party="host")
    try:
        yield stage
    finally:
        stage.clear()
        left = processes_below(root)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == []


class Callers:
    """Clients that never stop asking; what they were answered, and with what they were refused."""

    def __init__(self, client: Client, count: int) -> None:
        self.answers = 0
        self.failures: list[Exception] = []
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self._client.predict("digits", {"images": PIXELS})
                self.answers += 1
            except Exception as error:
                self.failures.append(error)
            time.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def take_version(stage: Stage, version: int) -> None:
    """As a host takes a version: under a name that no replica looks at, then renamed."""
    source, target = stage.owner / "bundle" / "models" / "digits", stage.host / "models" / "digits"
    shutil.copytree(source / str(version), target / f".{version}.part")
    (target / f".{version}.part").rename(target / str(version))


def test_a_roll_whose_fresh_replica_fails_leaves_the_old_ones_serving(own: Stage, status: Status) -> None:
    before = status(own)["replicas"]
    fresh = 1 + max(int(replica["name"].removeprefix("replica-")) for replica in before)
    version = own.host / "models" / before[0]["servables"][0]
    damaged = bytearray((version / "model.bin").read_bytes())
    damaged[5000] ^= 1
    whole = (version / "model.bin").read_bytes()
    (version / "model.bin").write_bytes(damaged)
    with pytest.raises(EnsconceError, match=f"replica-{fresh}"):
        own.run("roll", "--host", str(own.host), "--json", party="host")
    states = [replica["state"] for replica in status(own)["replicas"]]
    assert states[:2] == ["ready", "ready"]
    assert status(own)["rolling"] is True
    # Mended, the roll goes on by itself.
    (version / "model.bin").write_bytes(whole)
    deadline = time.monotonic() + 60
    while (found := status(own))["rolling"] or [each["state"] for each in found["replicas"]] != ["ready", "ready"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert {replica["name"] for replica in found["replicas"]} == {f"replica-{fresh}", f"replica-{fresh + 1}"}


@pytest.mark.timeout(180)
def test_a_models_key_is_rotated_and_no_client_notices(
    own: Stage, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: WaitFor
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    owner, host = ("--owner", str(own.owner)), ("--host", str(own.host), "--json")
    before = status(own)
    assert [replica["servables"] for replica in before["replicas"]] == [["digits/1"]] * 2
    client = Client.connect(
        f"127.0.0.1:{own.ports.grpc}",
        own.client / "policy.yaml",
        authority=own.client / "ca.pem",
        collateral=f"http://127.0.0.1:{own.ports.pccs}",
        server_name=DOMAIN,
        connections=4,
    )
    with client:
        callers = Callers(client, 2)
        try:
            sealed = own.run("model", "reseal", "--name", "digits", "--version", "1", "--json", *owner)
            assert sealed["version"] == 2
            take_version(own, 2)

            def served() -> list[list[str]]:
                return [replica["servables"] for replica in status(own)["replicas"]]

            # The replicas that run take it by themselves.
            wait_for(lambda: served() == [["digits/1", "digits/2"]] * 2, "version 2")
            old = client.predict("digits", {"images": PIXELS}, version=1)
            new = client.predict("digits", {"images": PIXELS}, version=2)
            assert all(np.array_equal(old[name], new[name]) for name in old)

            shutil.rmtree(own.host / "models" / "digits" / "1")
            after = own.run("roll", *host, party="host")
            assert [replica["servables"] for replica in after["replicas"]] == [["digits/2"]] * 2
            own.run("model", "retire", "--name", "digits", "--version", "1", *owner)
            answered = callers.answers
            wait_for(lambda: callers.answers > max(answered + 20, 100), "answers after the change")
        finally:
            callers.stop()
        assert callers.failures == []
        with pytest.raises(InputError):
            client.predict("digits", {"images": PIXELS}, version=1)
    assert not {replica["name"] for replica in before["replicas"]} & {replica["name"] for replica in after["replicas"]}
    assert [replica["restarts"] for replica in after["replicas"]] == [0, 0]
