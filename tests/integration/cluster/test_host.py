"""The host's commands against real processes: up, status, scale, down; and everything that can go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.demo.stage import Stage, processes_below
from ensconce.errors import EnsconceError, InputError, RefusedError, UnreachableError

Status = Callable[[Stage], dict[str, Any]]
Until = Callable[[Stage, list[str]], dict[str, Any]]
StartUp = Callable[..., subprocess.Popen[str]]
WaitFor = Callable[[Callable[[], object], str], None]


def gone(folder: Path) -> None:
    """Wait until no process works in the folder."""
    deadline = time.monotonic() + 60
    while left := processes_below(folder):
        assert time.monotonic() < deadline, [_arguments(pid) for pid in left]
        time.sleep(0.05)


def test_up_scale_down(served: Stage, status: Status, until: Until) -> None:
    ready = status(served)
    assert [replica["servables"] for replica in ready["replicas"]] == [["digits/1"], ["digits/1"]]
    more = served.run("scale", "3", "--host", str(served.host), "--json", party="host")
    assert [replica["name"] for replica in more["replicas"]] == ["replica-1", "replica-2", "replica-3"]
    served.run("scale", "1", "--host", str(served.host), "--json", party="host")
    assert until(served, ["ready"])["replicas"][0]["name"] == "replica-1"
    logs = served.run("logs", "replica-2", "--host", str(served.host), "--json", party="host")
    assert '"event": "stopped"' in logs["replica-2"][-1]
    served.run("down", "--host", str(served.host), party="host")
    with pytest.raises(UnreachableError, match="nothing runs"):
        status(served)


def test_nothing_survives_the_supervisor(served: Stage) -> None:
    supervisor = next(pid for pid in processes_below(served.host) if b"ensconce.cluster.supervisor" in _arguments(pid))
    os.kill(supervisor, signal.SIGKILL)
    gone(served.host)
    assert served.run("up", "--host", str(served.host), "--json", party="host")["wanted"] == 2


@pytest.mark.parametrize("port", ["grpc", "rest", "pccs"])
def test_a_port_in_use_is_named_and_nothing_is_left(stage: Stage, port: str) -> None:
    number = getattr(stage.ports, port)
    with socket.create_server(("127.0.0.1", number)), pytest.raises(InputError, match=str(number)):
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert processes_below(stage.host) == []


def test_without_a_provisioning_server_up_says_so_and_stops(stage: Stage) -> None:
    with pytest.raises(UnreachableError, match="replica-"):
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert processes_below(stage.host) == []


def test_a_provisioning_server_that_comes_late_is_waited_for(
    stage: Stage, start_up: StartUp, wait_for: WaitFor
) -> None:
    process = start_up("--json")
    wait_for((stage.host / "run" / "control.sock").exists, "the supervisor")
    stage.provision_serve("--owner", str(stage.owner))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    stage.run("down", "--host", str(stage.host), party="host")


def test_a_replica_that_the_policy_refuses_ends_up_with_the_reason(stage: Stage) -> None:
    policy = stage.owner / "other.yaml"
    text = (stage.owner / "policy.yaml").read_text()
    start = text.index('mr_enclave: "') + len('mr_enclave: "')
    policy.write_text(text[:start] + "ab" * 32 + text[start + 64 :])
    stage.provision_serve("--owner", str(stage.owner), "--policy", str(policy))
    with pytest.raises(RefusedError) as caught:
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert caught.value.check == "policy.mr_enclave"
    assert processes_below(stage.host) == []


@pytest.mark.parametrize(
    "point", ["imports", "run", "run/platform.sock", "run/control.sock", "run/replicas/*/ready.json"]
)
def test_ctrl_c_at_any_point_of_up_leaves_nothing(
    stage: Stage, start_up: StartUp, wait_for: WaitFor, point: str
) -> None:
    if "ready" in point:
        stage.provision_serve("--owner", str(stage.owner))
    process = start_up()
    held: list[int] = []
    if "ready" in point:
        # One replica stands still meanwhile: with all of them ready, `up` would end by itself.
        wait_for(lambda: held.extend(replica_in(stage.host / "run" / "replicas" / "2")) or held, "a replica")
        os.kill(held[0], signal.SIGSTOP)
    if point == "imports":
        wait_for(lambda: importing(process.pid) or list(stage.host.glob("run")), point)
    else:
        wait_for(lambda: list(stage.host.glob(point)), point)
    # As a terminal does it: to the whole foreground group.
    os.killpg(process.pid, signal.SIGINT)
    for pid in held:
        os.kill(pid, signal.SIGCONT)
    _, words = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT), words
    assert "Traceback" not in words
    gone(stage.host)


def importing(pid: int) -> bool:
    """Whether Python has begun, which ignores SIGPIPE, and a Ctrl-C still ends it as it ends any program (proc(5))."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    ignored, caught = (int(fields[name], 16) for name in ("SigIgn", "SigCgt"))
    return bool(ignored >> (signal.SIGPIPE - 1) & 1) and not caught >> (signal.SIGINT - 1) & 1


def replica_in(folder: Path) -> list[int]:
    """The process of the replica whose folder it is, once it is its own program and nobody waits for its beginning."""
    found = []
    for pid in processes_below(folder):
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(pid) / "cwd").readlink() == folder and b"enclave.replica" in _arguments(pid):
                found.append(pid)
    return found


def _arguments(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def edited(stage: Stage, old: str, new: str) -> None:
    path = stage.host / "ensconce.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("replicas: 2", "replicas: two", "field replicas"),
        ("gateway: auto", "gateway: auto\nsurprise: 1", "surprise"),
        ("gateway: auto", "gateway: [auto", "line"),
        ("version: 1", "version: 7", "field version"),
    ],
)
def test_a_broken_deployment_file_is_explained(stage: Stage, old: str, new: str, says: str) -> None:
    edited(stage, old, new)
    with pytest.raises(InputError) as caught:
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert says in str(caught.value)
    assert "ensconce.yaml" in str(caught.value)
    assert processes_below(stage.host) == []


def test_a_folder_that_is_no_bundle(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ensconce\.yaml"):
        stage.run("up", "--host", str(tmp_path), "--json", party="host")
    (stage.host / "enclave" / "server.sig").unlink()
    with pytest.raises(InputError, match=r"server\.sig"):
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "down"])
def test_commands_without_a_service(stage: Stage, command: str) -> None:
    with pytest.raises(EnsconceError) as caught:
        stage.run(command, "--host", str(stage.host), party="host")
    assert caught.value.exit_status == 5


def test_the_embedded_gateway_serves_as_well(stage: Stage) -> None:
    edited(stage, "gateway: auto", "gateway: embedded")
    stage.provision_serve("--owner", str(stage.owner))
    up = stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert up["gateway"] == "embedded"
    assert stage.verify(stage.ports.grpc)["accepted"] is True
    stage.run("down", "--host", str(stage.host), party="host")


@pytest.mark.parametrize(
    "taken", ["logs", "control.sock/x", "supervisor.lock/x", "platform.sock/x", "gateway", "replicas"]
)
def test_what_lies_in_the_way_is_named_and_nothing_is_left(stage: Stage, taken: str) -> None:
    path = stage.host / "run" / taken
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(EnsconceError) as caught:
        stage.run("up", "--host", str(stage.host), "--json", party="host")
    assert str(stage.host / "run" / taken.split("/")[0]) in str(caught.value)
    assert processes_below(stage.host) == []


def test_the_reason_is_told_even_where_no_log_can_be_written(stage: Stage) -> None:
    edited(stage, "version: 1", "version: 7")
    (stage.host / "run" / "logs").mkdir(parents=True)
    (stage.host / "run" / "logs" / "supervisor.log").symlink_to("/dev/full")
    with pytest.raises(InputError, match="field version"):
        stage.run("up", "--host", str(stage.host), "--json", party="host")
