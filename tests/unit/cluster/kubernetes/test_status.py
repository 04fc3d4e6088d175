"""What a cluster says of replicas, as kubectl prints it; that they prove themselves is tested with real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.cluster.kubernetes import kubectl, status
from ensconce.cluster.kubernetes.status import Proved, directly, prove, read_pods
from ensconce.errors import InputError, UnreachableError

MEASUREMENT = "ab" * 32


def pod(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ensconce",
            "annotations": {"ensconce/domain": "digits.example.test", "ensconce/mr-enclave": MEASUREMENT},
            **changes.get("metadata", {}),
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {"name": "sidecar", "ports": []},
                {"name": "replica", "ports": [{"name": "grpc", "containerPort": 8500}]},
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": [{"type": "Ready", "status": changes.get("ready", "True")}],
            "containerStatuses": [{"name": "replica", "restartCount": 3}, {"name": "sidecar", "restartCount": 9}],
        },
    }


@pytest.fixture
def fake_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program of that name that does what the test says."""

    def make(script: str) -> None:
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "kubectl").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])

    return make


def test_a_pod_is_read() -> None:
    (second, first) = pod("digits-b", ready="False"), pod("digits-a")
    found = read_pods([second, first, pod("other", metadata={"annotations": {}})])
    assert [(each.pod, each.ready, each.restarts) for each in found] == [("digits-a", True, 3), ("digits-b", False, 3)]
    assert (found[0].node, found[0].address, found[0].ports) == ("node-1", "10.1.2.3", {"grpc": 8500})
    assert (found[0].measurement, found[0].phase) == (MEASUREMENT, "Running")
    first["metadata"]["deletionTimestamp"] = "2026-11-23T15:00:00Z"
    assert [each.phase for each in read_pods([first])] == ["Terminating"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"items": [1]}', b'{"items": [{"kind": "Node"}]}'])
def test_what_is_no_list_of_pods(data: bytes) -> None:
    with pytest.raises(InputError, match=r"kubectl\.pods"):
        kubectl.parse_pods(data)


def test_a_pod_that_is_none() -> None:
    with pytest.raises(InputError, match=r"kubectl\.pods"):
        read_pods([{"kind": "Pod", "metadata": {}}])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # What an API server may write that means a host's reader ill.
        (("metadata", "name"), 5),
        (("metadata", "namespace"), ["x"]),
        (("metadata", "annotations"), {"ensconce/domain": 5}),
        (("metadata", "annotations"), {"ensconce/domain": "a.test", "ensconce/metrics-path": "http://other.test/"}),
        (("metadata", "annotations"), {"ensconce/domain": "a.test", "ensconce/metrics-path": "//[/"}),
        (("metadata", "annotations"), None),
        (("spec", "nodeName"), {"a": 1}),
        (("spec", "containers"), [{"name": "replica", "ports": [{"name": "grpc", "containerPort": 1 << 70}]}]),
        (("spec", "containers"), [{"name": "replica", "ports": [{"name": "grpc", "containerPort": "8500"}]}]),
        (("status", "podIP"), "elsewhere.example.test"),
        (("status", "phase"), 1),
        (("status", "containerStatuses"), [{"name": "replica", "restartCount": "9" * 5000}]),
    ],
)
def test_a_pod_that_no_api_server_writes(path: tuple[str, str], value: object) -> None:
    made = pod("digits-a")
    made[path[0]][path[1]] = value
    with pytest.raises(InputError, match=r"kubectl\.pods"):
        read_pods([made])


def test_a_replica_without_an_address_is_not_looked_for_on_this_machine() -> None:
    made = pod("digits-a")
    del made["status"]["podIP"]
    (proof,) = prove(read_pods([made]), None, directly)  # type: ignore[arg-type]  # nobody is asked
    assert proof is not None
    assert proof.error is not None
    assert proof.error.check == "kubernetes.address"


def test_pods_that_prove_the_same_key_are_one_replica_and_its_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"digits-a": "one", "digits-b": "two", "digits-c": "one"}
    monkeypatch.setattr(status, "_prove", lambda replica, *_: Proved(replica=keys[replica.pod]))
    found = read_pods([pod(name) for name in keys])
    errors = [each.error for each in prove(found, None, directly) if each is not None]  # type: ignore[arg-type]
    assert [error.check if error else None for error in errors] == ["kubernetes.relayed", None, "kubernetes.relayed"]


def test_only_ready_replicas_are_asked() -> None:
    found = read_pods([pod("digits-a", ready="False")])
    assert prove(found, None, directly) == [None]  # type: ignore[arg-type]  # nobody is asked


def test_the_command_tells_what_the_cluster_says(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text(json.dumps({"items": [pod("digits-a"), pod("digits-b", ready="False")]}))
    done = CliRunner().invoke(app, ["kubernetes", "status", "--pods", str(tmp_path / "pods.json"), "--json"])
    assert done.exit_code == 0, done.output
    assert [(each["pod"], each["ready"], each["proved"]) for each in json.loads(done.stdout)] == [
        ("digits-a", True, None),
        ("digits-b", False, None),
    ]
    table = CliRunner().invoke(app, ["kubernetes", "status", "--pods", "-"], input=(tmp_path / "pods.json").read_text())
    assert "digits-b  node-1  Running" in table.stdout
    long = "digits-of-a-long-name-7f6bd76685-ckf4b" * 3
    table = CliRunner().invoke(app, ["kubernetes", "status", "--pods", "-"], input=json.dumps({"items": [pod(long)]}))
    assert f"{long}  node-1  ready" in table.stdout
    half = CliRunner().invoke(app, ["kubernetes", "status", "--pods", "-", "--pccs", "http://127.0.0.1"], input="{}")
    assert isinstance(half.exception, InputError)


def test_kubectl_is_asked(fake_kubectl: Callable[[str], None]) -> None:
    fake_kubectl(f"echo '{json.dumps({'items': [pod('digits-a')]})}'")
    assert [each.pod for each in read_pods(kubectl.get_pods("ensconce", "a=b"))] == ["digits-a"]
    fake_kubectl("echo 'no such namespace' >&2; exit 1")
    with pytest.raises(UnreachableError, match="no such namespace"):
        kubectl.get_pods("ensconce", "a=b")


def test_a_way_through_kubectl(fake_kubectl: Callable[[str], None]) -> None:
    fake_kubectl(
        "echo 'Forwarding from 127.0.0.1:41001 -> 8500'; echo 'Forwarding from [::1]:41001 -> 8500'\n"
        "echo 'Forwarding from 127.0.0.1:41002 -> 8501'; exec sleep 60"
    )
    with kubectl.forwarded("ensconce", "digits-a", [8500, 8501]) as ports:
        assert ports == {8500: 41001, 8501: 41002}
    fake_kubectl("echo 'error: pods \"digits-a\" not found'; exit 1")
    with pytest.raises(UnreachableError, match="not found"), kubectl.forwarded("ensconce", "digits-a", [8500]):
        pass


def test_no_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"kubectl\.missing"):
        kubectl.get_pods("ensconce", "a=b")
