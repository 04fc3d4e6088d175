"""What a host that is up answers, and what it survives: the tests share one, and leave it as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.addresses import Address
from ensconce.client.attested import connect_tls
from ensconce.cluster import control
from ensconce.cluster.client import open_appraiser, read_authority
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
