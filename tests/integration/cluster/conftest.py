"""One owner for all tests of this folder, with a sealed model and a built enclave; fresh hosts for tests or modules."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensconce.cluster.owner import OwnerFolder
from ensconce.demo.data import digits_folder
from ensconce.demo.stage import Ports, Stage, processes_below


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, find_port: Callable[[], int]) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("cluster"), Ports(*(find_port() for _ in range(4))))
    stage.client.mkdir()
    stage.init(stage.owner)
    owner = ("--owner", str(stage.owner))
    stage.run("model", "seal", str(digits_folder() / "openvino"), "--name", "digits", "--version", "1", *owner)
    stage.run("enclave", "build", *owner)
    stage.run("policy", "write", *owner)
    for name in ("policy.yaml", "ca.pem"):
        shutil.copy(stage.owner / name, stage.client)
    return stage


@contextlib.contextmanager
def _fresh_host(prepared: Stage) -> Iterator[Stage]:
    """A fresh host's folder; whatever is left running at the end is an error, and is killed."""
    shutil.rmtree(prepared.host, ignore_errors=True)
    shutil.copytree(prepared.owner / "bundle", prepared.host, copy_function=os.link)
    # The deployment file is changed in place by some tests; it must not be the owner's own.
    text = (prepared.host / "ensconce.yaml").read_text()
    (prepared.host / "ensconce.yaml").unlink()
    (prepared.host / "ensconce.yaml").write_text(text)
    yield prepared
    for process in list(prepared.servers):
        prepared.end(process)
    left = processes_below(prepared.root)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


@contextlib.contextmanager
def _served(stage: Stage) -> Iterator[Stage]:
    """The provisioning server running and the host up."""
    stage.provision_serve("--owner", str(stage.owner))
    stage.run("up", "--host", str(stage.host), "--json", party="host")
    yield stage
    if (stage.host / "run" / "control.sock").exists():
        stage.run("down", "--host", str(stage.host), party="host")


@pytest.fixture
def stage(prepared: Stage) -> Iterator[Stage]:
    """The stage with a host's folder of the test's own."""
    with _fresh_host(prepared) as stage:
        yield stage


@pytest.fixture
def served(stage: Stage) -> Iterator[Stage]:
    """The stage with its provisioning server running and its host up, the test's own."""
    with _served(stage):
        yield stage


@pytest.fixture(scope="module")
def shared(prepared: Stage) -> Iterator[Stage]:
    """Like ``served``, for all tests of a module, which leave two replicas ready; it cannot be mixed with ``stage``."""
    with _fresh_host(prepared) as stage, _served(stage):
        yield stage


@pytest.fixture
def host(stage: Stage) -> Path:
    return stage.host


@pytest.fixture
def start_up(stage: Stage) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``ensconce up`` and does not wait for it; it has a process group of its own, as a terminal gives it."""
    own = {"ENSCONCE_SIMULATED_HOME": stage.root / "platform", "XDG_CACHE_HOME": stage.root / "host-cache"}
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ensconce", "up", "--host", str(stage.host), *options],
            env=dict(os.environ, NO_COLOR="1", **{name: str(path) for name, path in own.items()}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def status() -> Callable[[Stage], dict[str, Any]]:
    """What ``ensconce status`` says."""

    def ask(stage: Stage) -> dict[str, Any]:
        found = stage.run("status", "--host", str(stage.host), "--json", party="host")
        assert isinstance(found, dict)
        return found

    return ask


@pytest.fixture(scope="session")
def until(status: Callable[[Stage], dict[str, Any]]) -> Callable[[Stage, list[str]], dict[str, Any]]:
    """The status once the replicas have reached these states."""

    def wait(stage: Stage, states: list[str]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            found = status(stage)
            if [replica["state"] for replica in found["replicas"]] == states:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    return wait


@pytest.fixture
def server(
    find_port: Callable[[], int],
    owner_of: Callable[..., OwnerFolder],
    put_in_force: Callable[[OwnerFolder, int, str], None],
    server_of: Callable[[OwnerFolder, int, int], Any],
) -> Any:
    """A server that gives models/digits and a licence, not started yet."""
    port, status = find_port(), find_port()
    owner = owner_of([port], status)
    keystore = owner.keystore()
    for version in (1, 2, 3):
        keystore.put(f"model/digits/{version}", os.urandom(16), kind="wrap")
    keystore.put("secret/licence", b"the licence " * 20, kind="secret")
    put_in_force(owner, 1, "model/digits, secret/licence")
    return server_of(owner, port, status)
