"""The host's commands: bring a bundle up, look at it, scale it, take it down."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensconce.cluster import control
from ensconce.errors import EnsconceError, InputError, UnreachableError, restore

__all__ = ["down", "logs", "roll", "scale", "status", "up"]

_START_S = 120.0
_POLL_S = 0.1
_AWAY_S = 5.0

Watch = Callable[[dict[str, Any]], None]


def up(host: Path, watch: Watch) -> dict[str, Any]:
    """Start the supervisor of ``host`` and wait until every replica serves.

    When a replica fails, or the wait is interrupted, everything is stopped again.

    Args:
        host: a folder with the content of the owner's bundle.
        watch: called with each new status.

    Returns:
        The status with all replicas ready.

    Raises:
        InputError: not a bundle, already up, or a port is taken.
        EnsconceError: of whatever kind kept a replica from serving.
    """
    if not (host / "ensconce.yaml").is_file():
        raise InputError(
            "host.bundle", f"{host} holds no ensconce.yaml", remedy="name the folder that holds the owner's bundle"
        )
    run = host / "run"
    if _is_up(host):
        raise InputError("host.running", f"{host} is up already", remedy="`ensconce status`, or `ensconce down` first")
    (run / "logs").mkdir(parents=True, exist_ok=True)
    # Held back until there is a process to stop: a Ctrl-C in between would leave a supervisor that nobody knows of. It
    # inherits the mask, and lifts it once it can undo what it has started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, control.INTERRUPTIONS)
    try:
        process = _start(host)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _wait_for_supervisor(host, process)
        return _wait_until_settled(host, watch)
    except BaseException:
        if process.poll() is None:
            process.terminate()
            process.wait()
        raise


def status(host: Path) -> dict[str, Any]:
    """What runs in ``host``.

    Raises:
        UnreachableError: nothing does.
    """
    return control.ask(host, {"do": "status"})


def scale(host: Path, replicas: int, watch: Watch) -> dict[str, Any]:
    """Change the number of replicas and wait until it is so.

    Raises:
        InputError: a number outside the bounds.
        EnsconceError: of whatever kind kept a new replica from serving.
    """
    control.ask(host, {"do": "scale", "replicas": replicas})
    return _wait_until_settled(host, watch)


def roll(host: Path, watch: Watch) -> dict[str, Any]:
    """Replace every replica by a fresh one, which reads ``models/`` anew, one at a time; never fewer serve than wanted.

    When a fresh replica does not come up, the old ones that are left go on serving, and so does the attempt.

    Raises:
        EnsconceError: of whatever kind kept a new replica from serving.
    """
    wanted = control.ask(host, {"do": "roll"})["wanted"]
    return _wait_until_settled(host, watch, _START_S * max(1, wanted))


def down(host: Path) -> None:
    """Stop everything and wait until it is gone.

    Raises:
        UnreachableError: nothing ran.
    """
    control.ask(host, {"do": "stop"})
    until = time.monotonic() + _START_S
    while (lock := control.take_lock(host / "run")) is None:
        if time.monotonic() > until:
            raise EnsconceError("host.down", "the supervisor does not leave", remedy=f"read {host}/run/logs")
        time.sleep(_POLL_S)
    os.close(lock)


def logs(host: Path, name: str | None) -> dict[str, list[str]]:
    """The log lines of each process, or of the one called ``name``.

    Raises:
        InputError: there is no such log.
    """
    found = {
        path.stem if path.suffix == ".log" else f"{path.stem} (errors)": path.read_text(errors="replace").splitlines()
        for path in sorted((host / "run").glob("**/*"))
        if path.suffix in (".log", ".err") and path.is_file() and (name is None or path.stem == name)
    }
    if not found:
        known = sorted({path.stem for path in (host / "run").glob("**/*.log")})
        raise InputError(
            "host.logs",
            f"there is no log of {name}" if name else f"there are no logs in {host}/run",
            rule=f"one of {', '.join(known)}" if known else None,
            remedy="start the service with `ensconce up`" if not known else "choose one of these",
        )
    return found


def _start(host: Path) -> subprocess.Popen[bytes]:
    with (host / "run" / "logs" / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ensconce.cluster.supervisor", str(host.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _is_up(host: Path) -> bool:
    try:
        control.connect(host / "run").close()
    except (UnreachableError, FileNotFoundError):
        return False
    return True


def _wait_for_supervisor(host: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while not _is_up(host):
        if process.poll() is not None:
            try:
                words = json.loads(process.communicate()[0])
            except ValueError:
                raise EnsconceError(
                    "host.supervisor",
                    "the supervisor ended without saying why",
                    found=f"exit status {process.returncode}",
                    remedy=f"read {host}/run/logs/supervisor.log",
                ) from None
            raise restore(words["error"], words["exit_status"])
        if time.monotonic() > until:
            raise EnsconceError(
                "host.supervisor", "the supervisor does not answer", remedy=f"read {host}/run/logs/supervisor.log"
            )
        time.sleep(_POLL_S)


def _wait_until_settled(host: Path, watch: Watch, patience: float = _START_S) -> dict[str, Any]:
    until = time.monotonic() + patience
    away_since = math.inf
    while True:
        now = status(host)
        watch(now)
        states = [replica["state"] for replica in now["replicas"]]
        if states == ["ready"] * now["wanted"] and not now["rolling"]:
            return now
        for replica in now["replicas"]:
            away = replica["exit_status"] == UnreachableError.exit_status and replica["state"] in ("starting", "failed")
            if away:
                # The owner's server may be about to come; any other reason will be the same the next time.
                away_since = min(away_since, time.monotonic())
            if time.monotonic() > away_since + _AWAY_S if away else replica["state"] == "failed":
                error = restore(replica["error"], replica["exit_status"] or 1)
                raise error.altered(problem=f"{replica['name']}: {error.problem}")
        if time.monotonic() > until:
            raise EnsconceError(
                "host.start",
                f"{states.count('ready')} of {now['wanted']} replicas are ready after {patience:.0f} s",
                remedy="`ensconce logs`",
            )
        time.sleep(_POLL_S)
