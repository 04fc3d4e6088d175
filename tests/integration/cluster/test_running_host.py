"""What a host that is up answers, and what it survives: the tests share one, and leave it as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ensconce.addresses import Address
from ensconce.client.attested import connect_tls
from ensconce.client.service import read_authority
from ensconce.cluster import control
from ensconce.cluster.client import open_appraiser
from ensconce.demo.stage import DOMAIN, Stage
from ensconce.errors import InputError

Status = Callable[[Stage], dict[str, Any]]
Until = Callable[[Stage, list[str]], dict[str, Any]]
WaitFor = Callable[[Callable[[], object], str], None]


def test_up_twice(shared: Stage, status: Status) -> None:
    with pytest.raises(InputError, match="is up already"):
        shared.run("up", "--host", str(shared.host), "--json", party="host")
    assert len(status(shared)["replicas"]) == 2


def test_a_request_that_nobody_knows_is_refused_and_harms_nothing(shared: Stage, status: Status) -> None:
    for request in ({"do": "dance"}, {"do": "scale", "replicas": 0}, {"do": "scale", "replicas": 65}, {}):
        with pytest.raises(InputError, match="does not know"):
            control.ask(shared.host, request)
    with control.connect(shared.host / "run") as stream:
        stream.sendall(b"[1, 2]\n")
        assert b"must be a JSON object" in stream.recv(4096)
    with control.connect(shared.host / "run") as stream:
        stream.sendall(b"not json\n")
        assert stream.recv(4096) == b""
    assert len(status(shared)["replicas"]) == 2


@pytest.fixture
def answering(shared: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], set[str]]:
    """The replicas that so many attested connections through the gateway meet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    appraiser = open_appraiser(shared.client / "policy.yaml", f"http://127.0.0.1:{shared.ports.pccs}")
    authority = read_authority(shared.client / "ca.pem")
    gateway = Address("127.0.0.1", shared.ports.grpc)

    def connect(count: int) -> set[str]:
        met = set()
        for _ in range(count):
            with connect_tls(gateway, DOMAIN, appraiser, authority=authority, alpn="h2") as replica:
                met.add(replica.replica_id)
        return met

    return connect


def test_a_replica_that_dies_is_replaced_and_is_in_the_line_again(
    shared: Stage, status: Status, until: Until, answering: Callable[[int], set[str]], wait_for: WaitFor
) -> None:
    victim = status(shared)["replicas"][0]
    os.kill(victim["pid"], signal.SIGKILL)
    until(shared, ["failed", "ready"])
    found = until(shared, ["ready", "ready"])
    assert found["replicas"][0]["restarts"] == 1
    assert found["replicas"][0]["key_sha256"] != victim["key_sha256"]
    expected = {replica["key_sha256"][:16] for replica in found["replicas"]}
    # The gateway takes up its new configuration in a moment of its own.
    wait_for(lambda: answering(6) == expected, "both replicas behind the gateway")


def test_the_dashboard_sees_replicas_and_releases_and_needs_no_secret(
    shared: Stage, wait_for: WaitFor, tmp_path: Path
) -> None:
    owner = shutil.copytree(shared.owner, tmp_path / "owner", ignore=shutil.ignore_patterns("unlock.key", "keystore"))
    command = [sys.executable, "-P", "-m", "ensconce", "dashboard", "--owner", owner, "--host", shared.host]
    environment = {**os.environ, "XDG_CACHE_HOME": str(shared.root / "dashboard-cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(trust_env=False, follow_redirects=True) as client:
            client.get(url)
            home = url.partition("enter")[0]
            wait_for(lambda: "2 of 2 accepted" in client.get(home).text, "both replicas on the page")
            page = client.get(home).text
        assert {"SIMULATED", "replica-1", "replica-2", "model/digits/1", "AVAILABLE"} <= set(re.split(r"[<>\s]", page))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "interrupted\n"
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()
