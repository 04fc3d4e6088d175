"""One replica as it is deployed, on the simulated platform: how it starts, what it takes, how quickly it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from benchmarks.scaling.cost import memory, processor_seconds
from benchmarks.serving import protocols
from benchmarks.serving.deployed import DOMAIN, Deployment
from benchmarks.serving.ours import PREDICT

__all__ = ["measure"]

_EVENTS = {"started": "interpreter and its modules", "provisioned": "attested, keys here", "ready": "model loaded"}
_WARM = 20


def measure(folder: Path, model: Path, starts: int, predictions: int) -> dict[str, Any]:
    """Start a replica ``starts`` times, beside one that serves, and ask it.

    Returns:
        ``start``: for each start, seconds of each phase, of all (``whole``), and of the processor; ``memory``: of one
        that has answered; ``prediction``: for each prediction of one image through the gateway, with one caller,
        ``wall`` seconds, and ``cpu``, processor time of the replica over the number of processors.
    """
    deployment = Deployment(folder, {"resnet": model})
    try:
        deployment.start()
        found = [_start(folder / "host", deployment) for _ in range(starts)]
        [serving] = [each for each in _status(folder / "host")["replicas"] if each["state"] == "ready"]
        asked = _ask(deployment, serving["pid"], predictions)
        return {"start": found, "memory": memory(serving["pid"]), "prediction": asked}
    finally:
        deployment.stop()


def _start(host: Path, deployment: Deployment) -> dict[str, float]:
    """One more replica, and away with it again."""
    deployment._run("scale", "2", "--host", str(host))
    newest = max(_status(host)["replicas"], key=lambda replica: int(replica["name"].rpartition("-")[2]))
    at, processor = _began(newest["pid"]), processor_seconds(newest["pid"])
    lines = (host / "run" / "logs" / f"{newest['name']}.log").read_text().splitlines()
    told = {event["event"]: event["time"] for event in map(json.loads, lines)}
    deployment._run("scale", "1", "--host", str(host))
    phases, before = {}, at
    for event, phase in _EVENTS.items():
        phases[phase], before = told[event] - before, told[event]
    return {**phases, "whole": before - at, "processor time": processor}


def _began(pid: int) -> float:
    """When a process began, seconds since 1970, to a hundredth (proc(5), stat, field 22)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _status(host: Path) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "ensconce", "status", "--json", "--host", str(host)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return found


def _ask(deployment: Deployment, pid: int, count: int) -> list[dict[str, float]]:
    credentials = grpc.ssl_channel_credentials(deployment.ca.read_bytes())
    options = [("grpc.ssl_target_name_override", DOMAIN)]
    body = protocols.tfs_body("resnet", "images", np.zeros((1, 3, 224, 224), np.float32))
    found, processors = [], len(os.sched_getaffinity(0))
    with grpc.secure_channel(f"127.0.0.1:{deployment.grpc}", credentials, options=options) as channel:
        call = channel.unary_unary(PREDICT, None, None)
        for turn in range(_WARM + count):
            wall, busy = time.perf_counter(), processor_seconds(pid)
            call(body, timeout=60)
            took, cpu = time.perf_counter() - wall, (processor_seconds(pid) - busy) / processors
            if turn >= _WARM:
                found.append({"wall": took, "cpu": cpu})
    return found
