"""Beginning and end of the daemon: nothing starts twice, and nothing is left behind, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.platform.simulated.wire import short_name

ENDLESS = """
import os, signal, sys, time
def left(*_):
    open("left", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, left)
open("up", "w").close()
while True: time.sleep(0.01)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("up", "w").close()
while True: time.sleep(0.01)
"""
# Leaves a grandchild in a session of its own, which says who it is.
FORKING = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("grandchild.part", "w") as file:
            file.write(str(os.getpid()))
        os.rename("grandchild.part", "grandchild")
        while True: time.sleep(0.01)
    os._exit(0)
os.wait()
while True: time.sleep(0.01)
"""


def test_ending_the_daemon_ends_its_enclaves_in_peace(
    daemons: Callable[..., Any], make_enclave: Callable[..., Any], tmp_path: Path, until: Any, alive: Any
) -> None:
    machine, enclave = daemons(tmp_path), make_enclave(ENDLESS)
    pid = machine.launch(enclave)
    until((enclave.root / "up").exists)
    # Two clients that are in the middle of something.
    with socket.socket(socket.AF_UNIX) as idle, short_name(machine.socket) as name:
        idle.connect(name)
        idle.sendall(b"\0")
        host, port = machine.control.status().pccs.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as http:
            http.sendall(b"GET /")
            machine.process.send_signal(signal.SIGTERM)
            _, log = machine.process.communicate(timeout=60)
    assert machine.process.returncode == 0
    assert b"Traceback" not in log
    assert (enclave.root / "left").exists()
    assert not alive(pid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "host"]


def test_an_enclave_that_will_not_end_is_killed(
    daemons: Callable[..., Any], make_enclave: Callable[..., Any], tmp_path: Path, until: Any, alive: Any
) -> None:
    machine, enclave = daemons(tmp_path), make_enclave(STUBBORN)
    pid = machine.launch(enclave)
    until((enclave.root / "up").exists)
    machine.process.send_signal(signal.SIGINT)
    assert machine.process.wait(60) == 0
    assert not alive(pid)


def test_killing_the_daemon_kills_its_enclaves(
    daemons: Callable[..., Any], make_enclave: Callable[..., Any], tmp_path: Path, until: Any, alive: Any
) -> None:
    machine, enclave = daemons(tmp_path), make_enclave(STUBBORN)
    pid = machine.launch(enclave)
    until((enclave.root / "up").exists)
    machine.process.kill()
    until(lambda: not alive(pid))


def test_what_an_enclave_forked_ends_with_it(
    daemons: Callable[..., Any], make_enclave: Callable[..., Any], tmp_path: Path, until: Any, alive: Any
) -> None:
    machine, enclave = daemons(tmp_path), make_enclave(FORKING)
    pid = machine.launch(enclave)
    until((enclave.root / "grandchild").exists)
    grandchild = int((enclave.root / "grandchild").read_text())
    assert alive(grandchild)
    machine.control.signal(pid, signal.SIGKILL)
    assert machine.wait_for_end(pid) == -9
    until(lambda: not alive(grandchild))


def test_a_second_daemon_is_refused_and_the_first_goes_on(
    daemons: Callable[..., Any], start_daemon: Any, tmp_path: Path
) -> None:
    machine = daemons(tmp_path)
    second = start_daemon(machine.home, machine.socket)
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2
    assert b"[daemon.running]" in error
    assert error.count(b"\n") == 1
    assert machine.control.status().pid == machine.process.pid


def test_a_killed_daemon_leaves_nothing_in_the_way_of_the_next(daemons: Callable[..., Any], tmp_path: Path) -> None:
    first = daemons(tmp_path)
    root = first.control.status().root
    first.process.kill()
    first.process.wait()
    second = daemons(tmp_path)
    status = second.control.status()
    assert status.pid == second.process.pid
    assert status.root == root


def test_a_port_in_use_is_one_clear_line(start_daemon: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_daemon(tmp_path / "home", tmp_path / "s", "--pccs", f"127.0.0.1:{port}")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"[daemon.pccs]" in error
    assert error.count(b"\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", ":8081", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(start_daemon: Any, tmp_path: Path, address: str) -> None:
    process = start_daemon(tmp_path / "home", tmp_path / "s", "--pccs", address)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"[address.format]" in error


def test_a_folder_that_is_not_there_is_one_clear_line(start_daemon: Any, tmp_path: Path) -> None:
    process = start_daemon(tmp_path / "home", tmp_path / "nowhere" / "s")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"[daemon.socket]" in error


def test_the_daemon_follows_its_parent(
    sources: str, tmp_path: Path, until: Any, alive: Any, make_enclave: Callable[..., Any], connect: Any
) -> None:
    """A supervisor starts the daemon and is killed; daemon and enclave go too."""
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])",
            *("-m", "ensconce.platform.simulated.daemon", "--exit-with-parent"),
            *("--home", tmp_path / "home", "--socket", tmp_path / "s"),
        ],
        env={**os.environ, "PYTHONPATH": sources},
        stderr=subprocess.DEVNULL,
    )
    machine = connect(supervisor, tmp_path / "s")
    daemon = machine.control.status().pid
    enclave = make_enclave(ENDLESS)
    pid = machine.launch(enclave)
    until((enclave.root / "up").exists)
    supervisor.kill()
    supervisor.wait()
    until(lambda: not alive(daemon) and not alive(pid))
    assert (enclave.root / "left").exists()
    assert not (tmp_path / "s").exists()


def test_a_parent_that_has_gone_already_is_noticed(start_daemon: Any, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    process = start_daemon(tmp_path / "home", tmp_path / "s", "--exit-with-parent", str(gone.pid))
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / "s").exists()


def test_two_daemons_that_start_at_once_make_one_vendor(start_daemon: Any, connect: Any, tmp_path: Path) -> None:
    processes = [start_daemon(tmp_path / "home", tmp_path / name) for name in ("a", "b")]
    machines = [connect(process, tmp_path / name) for process, name in zip(processes, ("a", "b"), strict=True)]
    assert len({machine.control.status().root for machine in machines}) == 1
    for process in processes:
        process.terminate()
        process.communicate(timeout=60)
