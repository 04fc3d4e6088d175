"""Clients that come and go: attested connections through the gateway, each for some predictions, until told to stop.

Run as ``python -m onenode.load TASK``, a JSON file. Every call is a line of JSON on standard output; it ends with its
standard input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .machine import Machine

CALLS_OF_A_CONNECTION = 20
ATTEMPTS = 3
TIMEOUT_S = 10.0
"""Of connecting, and of a call: what the client library takes by itself."""


@dataclass(frozen=True)
class Task:
    """Where to send what: the gateway, the service's name, and whom the client accepts."""

    address: str
    server_name: str
    policy: str
    ca: str
    pccs: str
    model: str
    inputs: str
    callers: int


@dataclass(frozen=True)
class Call:
    """One prediction: when it was sent (Unix time), who answered; ``lost`` has the attempts that failed before it."""

    at: float
    seconds: float
    replica: str
    mr_enclave: str
    version: int
    lost: tuple[str, ...]
    failed: bool


class Load:
    """The client's process, in the machine. ``stop`` gives its calls."""

    def __init__(self, machine: Machine, folder: Path, task: Task) -> None:
        file = folder / "task.json"
        file.write_text(json.dumps(dataclasses.asdict(task)))
        self._errors = machine.logs / "load.log"
        self._lines: list[str] = []
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                machine.inside([sys.executable, "-m", "onenode.load", file]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *_python_path()])},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def calls(self) -> list[Call]:
        """Those that have ended so far."""
        return [Call(**{**json.loads(line), "lost": tuple(json.loads(line)["lost"])}) for line in self._lines.copy()]

    def since(self, at: float) -> list[Call]:
        """Those that were sent after ``at`` and have ended."""
        return [call for call in self.calls if call.at > at]

    def running(self) -> bool:
        """Whether the process is there; it ends by itself on what is no call's failure."""
        return self._process.poll() is None

    def stop(self) -> list[Call]:
        """End it, and every call that it made."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=90)
        self._reader.join()
        assert self._process.returncode == 0, self._errors.read_text()[-3000:]
        return self.calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let no caller outlive a test that failed."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(self._process.stdout)


def _python_path() -> list[str]:
    return [each for each in [os.environ.get("PYTHONPATH")] if each]


def per_replica(calls: Sequence[Call]) -> Counter[str]:
    """How many calls each replica answered."""
    return Counter(call.replica for call in calls if not call.failed)


def _caller(task: Task, stop: threading.Event, say: threading.Lock) -> None:
    import numpy as np

    from ensconce.addresses import Address
    from ensconce.client.channel import open_channel
    from ensconce.client.codec import PREDICT, encode_request
    from ensconce.client.service import Service
    from ensconce.cluster.client import open_appraiser, read_authority
    from ensconce.errors import EnsconceError
    from ensconce.tfserving.messages import PredictResponse

    appraiser, authority = open_appraiser(Path(task.policy), task.pccs), read_authority(Path(task.ca))
    images = np.load(task.inputs)
    request = encode_request(task.model, {"images": images[:1]})
    service = Service(
        targets=(Address.parse(task.address),),
        server_name=task.server_name,
        appraiser=appraiser,
        authority=authority,
        timeout=TIMEOUT_S,
    )
    while not stop.is_set():
        channel: Any = None
        for _ in range(CALLS_OF_A_CONNECTION):
            if stop.is_set():
                break
            at, began, lost = time.time(), time.perf_counter(), []
            replica, measurement, version = "", "", 0
            for _ in range(ATTEMPTS):
                try:
                    if channel is None:
                        channel = open_channel(service, connections=1)
                    with channel.pool.lease() as lease:
                        predict = lease.seat.channel.unary_unary(PREDICT)
                        answer = PredictResponse.FromString(predict(request, timeout=TIMEOUT_S))
                except Exception as error:
                    found = error.fields() if isinstance(error, EnsconceError) else {"problem": str(error)}
                    lost.append(json.dumps(found)[:1000])
                    if channel is not None:
                        channel.close()
                    channel = None
                    continue
                accepted = lease.seat.tunnel.accepted
                replica = accepted.replica_id
                measurement = str(accepted.acceptance.report.measurements()["mr_enclave"])
                version = answer.model_spec.version.value
                break
            call = Call(at, time.perf_counter() - began, replica, measurement, version, tuple(lost), not replica)
            with say:
                sys.stdout.write(json.dumps(dataclasses.asdict(call)) + "\n")
                sys.stdout.flush()
            # A closed loop without a pause would take both cores from the cluster that it is to watch.
            stop.wait(0.02)
        if channel is not None:
            channel.close()


def main(file: str) -> None:
    """Call until standard input ends."""
    task = Task(**json.loads(Path(file).read_text()))
    stop, say = threading.Event(), threading.Lock()
    callers = [threading.Thread(target=_caller, args=(task, stop, say)) for _ in range(task.callers)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    stop.set()
    for caller in callers:
        caller.join()


if __name__ == "__main__":
    main(sys.argv[1])
