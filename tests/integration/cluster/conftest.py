"""One owner for all tests of this folder, with a sealed model and a built enclave; a fresh host for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensconce.demo.data import digits_folder
from ensconce.demo.stage import Ports, Stage, processes_below


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("cluster"), Ports.free())
    stage.client.mkdir()
    stage.init(stage.owner)
    owner = ("--owner", str(stage.owner))
    stage.run("model", "seal", str(digits_folder() / "openvino"), "--name", "digits", "--version", "1", *owner)
    stage.run("enclave", "build", *owner)
    stage.run("policy", "write", *owner)
    for name in ("policy.yaml", "ca.pem"):
        shutil.copy(stage.owner / name, stage.client)
    return stage


@pytest.fixture
def stage(prepared: Stage) -> Iterator[Stage]:
    """The stage with a fresh host's folder; whatever a test leaves running is an error, and is killed."""
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


@pytest.fixture
def served(stage: Stage) -> Iterator[Stage]:
    """The stage with its provisioning server running and its host up."""
    stage.provision_serve("--owner", str(stage.owner))
    stage.run("up", "--host", str(stage.host), "--json", party="host")
    yield stage
    if (stage.host / "run" / "control.sock").exists():
        stage.run("down", "--host", str(stage.host), party="host")


@pytest.fixture
def host(stage: Stage) -> Path:
    return stage.host
