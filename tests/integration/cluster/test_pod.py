"""A replica as a container runs it: a vendor elsewhere, keys born here, health for kubelet, and an end that is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensconce.appraisal.policy_file import load_policy
from ensconce.demo.stage import DOMAIN, Stage, processes_below
from ensconce.errors import EvidenceError, RefusedError
from ensconce.platform.simulated.enrolment import root_name_at
from ensconce.platform.simulated.pki import SimulatedVendor

WaitFor = Callable[[Callable[[], object], str], None]


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def replicas_of(stage: Stage, ready: dict[str, Any]) -> Any:
    """What ``ensconce kubernetes status`` says of a cluster with this replica alone."""
    pod = {
        "metadata": {"name": "digits-1", "namespace": "ensconce", "annotations": {"ensconce/domain": DOMAIN}},
        "spec": {
            "nodeName": "here",
            "containers": [{"name": "replica", "ports": [{"name": "grpc", "containerPort": ready["grpc"]}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    (stage.client / "pods.json").write_text(json.dumps({"items": [pod]}))
    return stage.run(
        *("kubernetes", "status", "--pods", str(stage.client / "pods.json"), "--direct", "--json"),
        *("--policy", str(stage.client / "policy.yaml"), "--ca", str(stage.client / "ca.pem")),
        *("--pccs", f"http://127.0.0.1:{stage.ports.pccs}"),
        party="client",
    )


def reported_on(stage: Stage, port: int) -> None:
    """``ensconce verify`` of a replica that is there: accepted, refused by the policy, and for another name."""
    policy, page = stage.client / "policy.yaml", stage.client / "report.html"
    measured = re.compile("(?m)mr_enclave: .*$")
    stricter = stage.client / "stricter.yaml"
    stricter.write_text(measured.sub(f"mr_enclave: '{'00' * 32}'", policy.read_text()))

    def verify(policy: Path, name: str = DOMAIN, *options: str) -> Any:
        return stage.run(
            *("verify", f"127.0.0.1:{port}", "--server-name", name, "--policy", str(policy)),
            *("--ca", str(stage.client / "ca.pem"), "--pccs", f"http://127.0.0.1:{stage.ports.pccs}"),
            *("--html", str(page), *options),
            party="client",
        )

    printed = verify(policy, DOMAIN, "--fresh")
    assert printed.startswith("SIMULATED")
    assert "ok    A fresh quote" in printed
    assert "Accepted" in page.read_text()
    with pytest.raises(RefusedError) as refused:
        verify(stricter, DOMAIN, "--json")
    assert refused.value.check == "policy.mr_enclave"
    assert "Refused by the policy" in page.read_text()
    with pytest.raises(EvidenceError) as other:
        verify(policy, "other.example.test", "--json")
    assert other.value.check == "certificate.name"
    assert "not genuine, or not its own" in page.read_text()


def published_and_withdrawn(stage: Stage, port: int) -> None:
    """``ensconce verify --published`` of the same replica: by what its owner publishes, without a policy."""
    owner, file = ("--owner", str(stage.owner)), str(stage.client / "published.json")
    (root,) = load_policy(stage.client / "policy.yaml").roots

    def verify() -> Any:
        return stage.run(
            *("verify", f"127.0.0.1:{port}", "--server-name", DOMAIN, "--ca", str(stage.client / "ca.pem")),
            *("--pccs", f"http://127.0.0.1:{stage.ports.pccs}", "--published", file, "--root", root),
            *("--publisher", str(stage.owner / "owner.pub"), "--json"),
            party="client",
        )

    (enclave,) = stage.run("publish", file, *owner, "--json")["enclaves"]
    assert verify()["accepted"]
    stage.run("publish", file, *owner, "--withdraw", enclave["mr_enclave"], "--reason", "a test")
    with pytest.raises(RefusedError) as refused:
        verify()
    assert refused.value.check == "published.none"


@pytest.fixture
def vendor(stage: Stage) -> str:
    """The vendor as a service, at the address that the owner's deployment has for collateral."""
    stage.serve("simulated", "serve", "--listen", f"127.0.0.1:{stage.ports.pccs}", until="simulated vendor")
    return f"http://127.0.0.1:{stage.ports.pccs}"


@pytest.fixture
def pod(stage: Stage, vendor: str, find_port: Callable[[], int]) -> Iterator[Callable[..., tuple[Any, int]]]:
    """Starts a container's process in the host's folder; gives it and its health port."""
    started: list[subprocess.Popen[str]] = []

    def start(vendor: str = vendor) -> tuple[subprocess.Popen[str], int]:
        port = find_port()
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ensconce", "replica", "run", str(stage.host), "--platform", "simulated"),
                *("--vendor", vendor, "--run", str(stage.root / "pod"), "--health", f"127.0.0.1:{port}"),
            ],
            # No home of a vendor's own: the machine is born with the process.
            env=dict(os.environ, NO_COLOR="1", ENSCONCE_SIMULATED_HOME="/nonexistent"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, port

    yield start
    for process in started:
        process.kill()
        process.communicate()
    shutil.rmtree(stage.root / "pod", ignore_errors=True)


def test_a_pod_from_birth_to_drain(stage: Stage, vendor: str, pod: Callable[..., Any], wait_for: WaitFor) -> None:
    home = SimulatedVendor.load(stage.root / "platform")
    assert root_name_at(vendor) == home.root_name
    stage.provision_serve("--owner", str(stage.owner))
    process, port = pod()
    # Nothing is launched yet: it is alive, and not ready.
    wait_for(lambda: asked(port, "/livez") == (200, "ok\n"), "a health port")
    assert asked(port, "/readyz") == (503, "not ok\n")
    assert asked(port, "/metrics")[0] == 404
    wait_for(lambda: asked(port, "/readyz") == (200, "ok\n") or process.poll() is not None, "readiness")
    ready = json.loads((stage.root / "pod" / "replica" / "ready.json").read_text())
    verified = stage.verify(ready["grpc"])
    assert verified["accepted"]
    assert verified["verdict"]["root"] == home.root_name
    # The machine's own: no other has its PPID, and not the one that the vendor's seed yields.
    assert verified["verdict"]["ppid"] != home.machine().ppid.hex()
    (seen,) = replicas_of(stage, ready)
    assert (seen["node"], seen["ready"], seen["proved"]["accepted"]) == ("here", True, True)
    assert seen["proved"]["measurement"] == verified["verdict"]["mr_enclave"]
    assert seen["proved"]["not_after"] == verified["certificate_not_after"]
    reported_on(stage, ready["grpc"])
    published_and_withdrawn(stage, ready["grpc"])
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events.index("pod ready for requests") > events.index("ready")
    assert events[-2:] == ["pod draining", "stopped"] or events[-1] == "stopped"


def test_a_changed_file_ends_the_container_with_its_reason(stage: Stage, pod: Callable[..., Any]) -> None:
    config = stage.host / "enclave" / "server.json"
    text = config.read_text()
    config.unlink()  # a link to the owner's own
    config.write_text(text + " ")
    process, port = pod()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "launcher.trusted_file" in err
    assert asked(port, "/readyz")[0] == 0


def test_a_refused_replica_is_never_ready(stage: Stage, pod: Callable[..., Any], tmp_path: Path) -> None:
    policy = yaml.safe_load((stage.owner / "policy.yaml").read_text())
    policy["identities"][0]["mr_enclave"] = "00" * 32
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(policy))
    stage.provision_serve("--owner", str(stage.owner), "--policy", str(other))
    process, _ = pod()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "pod ready for requests" not in out
    assert json.loads(err.splitlines()[0])["error"]["check"].startswith("policy.")


def test_without_an_answer_it_waits_says_why_and_leaves_at_once(stage: Stage, pod: Callable[..., Any]) -> None:
    process, port = pod()
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "pod not ready" and "provisioning.unreachable" in event["why"]:
            break
    assert asked(port, "/readyz") == (503, "not ok\n")
    assert asked(port, "/livez") == (200, "ok\n")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    # What `kubectl describe pod` shows, when it was kubelet that lost its patience.
    assert process.returncode == 5
    assert "provisioning.unreachable" in err


def test_it_leaves_at_once_while_its_machine_is_not_born(
    stage: Stage, pod: Callable[..., Any], find_port: Callable[[], int], wait_for: WaitFor
) -> None:
    process, port = pod(vendor=f"http://127.0.0.1:{find_port()}")
    wait_for(lambda: asked(port, "/livez")[0] == 200, "a health port")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    wait_for(lambda: not processes_below(stage.root / "pod"), "the end of what it began")
