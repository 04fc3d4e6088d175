"""Clients that come and go, and clients that stay: attested connections through the gateway, until told to stop.

Run as ``python -m onenode.load TASK``, a JSON file. Every call is a line of JSON on standard output; it ends with its
standard input.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import numpy.typing as npt

from ensconce.addresses import Address
from ensconce.client.channel import AttestedChannel, open_channel
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.leaf import Accepted
from ensconce.client.predict import Client
from ensconce.client.service import Service, read_authority
from ensconce.cluster.client import open_appraiser
from ensconce.errors import EnsconceError
from ensconce.tfserving.messages import PredictResponse

from .machine import Machine

CALLS_OF_A_CONNECTION = 20
ATTEMPTS = 3
TIMEOUT_S = 10.0
"""Of connecting, and of a call: what the client library takes by itself."""


@dataclass(frozen=True)
class Task:
    """Where to send what: the gateway, the service's name, whom the client accepts.

    Then, how many callers of each kind, and the seconds that they pause between two calls.
    """

    address: str
    server_name: str
    policy: str
    ca: str
    pccs: str
    model: str
    inputs: str
    plain: int
    comfortable: int
    pause: float


@dataclass(frozen=True)
class Call:
    """One prediction: when it was sent (Unix time), who answered; ``lost`` has the attempts that failed before it.

    A version of 0 is one that the caller was not told.
    """

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


@dataclass(frozen=True)
class _Answer:
    replica: str
    mr_enclave: str
    version: int


class _Plain:
    """Predictions over channels of one connection that are opened anew now and then; nothing is tried again for it."""

    def __init__(self, service: Service, task: Task, images: npt.NDArray[np.float32]) -> None:
        self._service = service
        self._request = encode_request(task.model, {"images": images})
        self._channel: AttestedChannel | None = None
        self._calls = 0

    def predict(self) -> _Answer:
        if self._channel is None:
            self._channel, self._calls = open_channel(self._service, connections=1), 0
        with self._channel.pool.lease() as lease:
            method = lease.seat.channel.unary_unary(PREDICT)
            answer = PredictResponse.FromString(method(self._request, timeout=TIMEOUT_S))
            accepted = lease.seat.tunnel.accepted
        assert accepted is not None
        self._calls += 1
        if self._calls == CALLS_OF_A_CONNECTION:
            self.close()
        return _Answer(accepted.replica_id, _measurement(accepted), answer.model_spec.version.value)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None


class _Comfortable:
    """Predictions by one client, as most will have it: its connections stay, it looks for replicas, and tries again."""

    def __init__(self, service: Service, task: Task, images: npt.NDArray[np.float32]) -> None:
        self._client = Client(open_channel(service))
        self._model, self._images = task.model, images

    def predict(self) -> _Answer:
        before = self._client.calls
        self._client.predict(self._model, self._images, timeout=TIMEOUT_S)
        # Two where it had to ask what the model takes as well.
        replica, *_ = Counter(self._client.calls) - Counter(before)
        return _Answer(replica, _measurement(self._client.accepted[replica]), 0)

    def close(self) -> None:
        self._client.close()


def _measurement(accepted: Accepted) -> str:
    return str(accepted.acceptance.report.measurements()["mr_enclave"])


def _caller(
    make: Callable[[], _Plain | _Comfortable], pause: float, stop: threading.Event, say: Callable[[Call], None]
) -> None:
    caller = make()
    while not stop.is_set():
        at, began, lost = time.time(), time.perf_counter(), []
        answer = None
        while answer is None and len(lost) < (ATTEMPTS if isinstance(caller, _Plain) else 1):
            try:
                answer = caller.predict()
            except (EnsconceError, grpc.RpcError) as error:
                found = error.fields() if isinstance(error, EnsconceError) else {"problem": str(error)}
                lost.append(json.dumps(found)[:1000])
                if isinstance(caller, _Plain):
                    caller.close()
        seconds, found = time.perf_counter() - began, answer or _Answer("", "", 0)
        say(Call(at, seconds, found.replica, found.mr_enclave, found.version, tuple(lost), answer is None))
        stop.wait(pause)
    caller.close()


def main(file: str) -> None:
    """Call until standard input ends, or something is no call's failure."""
    task = Task(**json.loads(Path(file).read_text()))
    service = Service(
        targets=(Address.parse(task.address),),
        server_name=task.server_name,
        appraiser=open_appraiser(Path(task.policy), task.pccs),
        authority=read_authority(Path(task.ca)),
        timeout=TIMEOUT_S,
    )
    images = np.load(task.inputs)[:1]
    stop, saying = threading.Event(), threading.Lock()

    def say(call: Call) -> None:
        with saying:
            sys.stdout.write(json.dumps(dataclasses.asdict(call)) + "\n")
            sys.stdout.flush()

    def give_up(failure: threading.ExceptHookArgs) -> None:
        sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
        os._exit(1)

    threading.excepthook = give_up
    kinds = [_Plain] * task.plain + [_Comfortable] * task.comfortable
    callers = [
        threading.Thread(target=_caller, args=(functools.partial(kind, service, task, images), task.pause, stop, say))
        for kind in kinds
    ]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    stop.set()
    for caller in callers:
        caller.join()


if __name__ == "__main__":
    main(sys.argv[1])
