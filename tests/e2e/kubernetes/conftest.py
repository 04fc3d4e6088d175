"""A cluster for the story; the modules of ``onenode`` start it. Only ``make cluster-test`` collects what is here."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from onenode.cluster import Cluster
from onenode.gateway import Gateway
from onenode.machine import Machine
from onenode.programs import NoProgramsError, Programs, find_programs

if "ENSCONCE_CLUSTER_TEST" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


_REPORT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed when all tests are over."""
    return request.config.stash.setdefault(_REPORT, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print them."""
    for line in config.stash.get(_REPORT, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The node's machine. Its logs are kept when a test fails."""
    folder = Path(tempfile.mkdtemp(prefix="ensconce-cluster-"))
    machine = Machine(folder)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()
        if request.session.testsfailed:
            sys.stderr.write(f"\nlogs of the cluster are in {machine.logs}\n")
        else:
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The programs that a node runs; skips where there are none."""
    try:
        return find_programs()
    except NoProgramsError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def cluster(programs: Programs, machine: Machine) -> Cluster:
    """A cluster whose node is Ready and which knows the Gateway API."""
    cluster = Cluster(machine, programs)
    cluster.start()
    cluster.apply_folder(programs.api)
    cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinition", "--all", "--timeout=300s")
    return cluster


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> Gateway:
    """A gateway that does what the cluster's routes say."""
    gateway = Gateway(cluster)
    gateway.start()
    return gateway
