"""A container's main process: start the replica, say how it is, drain it on SIGTERM, and end as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensconce.addresses import Address, listen
from ensconce.cluster.pod.enclaves import Enclave, Kind, Started, start
from ensconce.cluster.pod.health import Health, Look, our_replica, tensorflow_serving
from ensconce.cluster.replica import unanswered_in, words_in
from ensconce.enclave.build import MANIFEST, SIGSTRUCT
from ensconce.enclave.config import ReplicaConfig
from ensconce.enclave.manifest import CONFIG
from ensconce.enclave.tensorflow_serving import AUTHORITY, SSL_CONFIG, port_in
from ensconce.errors import InputError, restore
from ensconce.files import read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, parse_manifest
from ensconce.provisioning.status import Answer, serve_status
from ensconce.provisioning.threads import Threads

__all__ = ["LIVE", "READY", "Pod", "run_pod"]

LIVE = "/livez"
READY = "/readyz"

_MAX_AUTHORITY = 1 << 16
_LOOK_S = 1.0
_GRACE_S = 20.0


@dataclass(frozen=True)
class Pod:
    """What runs, and where.

    Attributes:
        bundle: the folder with ``enclave/`` and ``models/``.
        run: a folder that can be written.
        kind: what runs the enclave.
        vendor: URL of the simulated vendor; this machine is its own when None.
        health: where kubelet asks how the replica is, over plain HTTP.
    """

    bundle: Path
    run: Path
    kind: Kind
    vendor: str | None
    health: Address


def run_pod(pod: Pod) -> None:
    """Run until SIGTERM or SIGINT, or until the replica ends by itself.

    Raises:
        InputError: there is no enclave, it cannot be started, or the health address is taken.
        EnsconceError: what the replica ended with, of its kind.
    """
    for needed in (MANIFEST, SIGSTRUCT, "models"):
        if not (pod.bundle / needed).exists():
            raise InputError(
                "replica.bundle", f"{pod.bundle} lacks {needed}", remedy="mount what `ensconce enclave build` made"
            )
    look = _look_at(pod)
    try:
        pod.run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "replica.run", f"cannot write to {pod.run}: {error.strerror}", remedy="mount a volume there"
        ) from error
    asyncio.run(_run(pod, Health(look)))


def _look_at(pod: Pod) -> Look:
    if not (pod.bundle / SSL_CONFIG).exists():
        return our_replica(ReplicaConfig.load(pod.bundle / CONFIG), pod.run / "replica")
    if pod.kind != "gramine":
        raise InputError(
            "replica.platform",
            "TensorFlow Serving gets its key from Gramine's own library alone",
            found=pod.kind,
            rule="gramine",
            remedy="run it under Gramine, or import the model for our own server, engine openvino",
        )
    manifest = parse_manifest(read_bounded(pod.bundle / MANIFEST, MAX_MANIFEST_SIZE))
    authority = read_bounded(pod.bundle / AUTHORITY, _MAX_AUTHORITY).decode(errors="replace")
    return tensorflow_serving(port_in(manifest), authority)


async def _run(pod: Pod, health: Health) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    listener = listen(pod.health, "replica.health")
    async with contextlib.AsyncExitStack() as stack:
        server = await serve_status(listener, _answers(health))
        stack.callback(server.close)
        started = await _started(pod, told)
        if started is None:
            return
        stack.callback(started.enclave.close)
        _tell("launched", pid=started.enclave.pid, health_port=listener.getsockname()[1])
        await _watch(started, health, told)


async def _started(pod: Pod, told: asyncio.Event) -> Started | None:
    """The enclave; None when it is told to stop before there is one. What was begun then ends with this process."""
    outputs = (sys.stdout.buffer, sys.stderr.buffer)
    call = Threads(1, "start").run(start, pod.kind, pod.bundle, pod.run, pod.vendor, outputs)
    starting, stopping = asyncio.ensure_future(call), asyncio.create_task(told.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        return starting.result()
    starting.cancel()
    return None


async def _watch(started: Started, health: Health, told: asyncio.Event) -> None:
    enclave = started.enclave
    ended = _ended(enclave)
    watching = asyncio.create_task(_look(health, started))
    stopping = asyncio.create_task(told.wait())
    await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    stopping.cancel()
    health.stopping = True
    if not ended.done():
        # Said by whoever ends it as well: kubelet's startup probe knows only that it was not ready.
        unanswered = unanswered_in(started.last_words)
        _tell("draining")
        enclave.signal(signal.SIGTERM)
        done, _ = await asyncio.wait((ended,), timeout=_GRACE_S)
        if not done:
            _tell("killed", after_seconds=_GRACE_S)
            enclave.signal(signal.SIGKILL)
            await ended
        if unanswered is not None:
            raise unanswered
        return
    status = await asyncio.to_thread(enclave.status)
    await asyncio.to_thread(enclave.close)
    raise restore(words_in(started.last_words, "the replica", "the container's log"), status)


def _ended(enclave: Enclave) -> asyncio.Future[None]:
    """Done when the enclave's process has ended, by the kernel's word."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        handle = os.pidfd_open(enclave.pid)
    except ProcessLookupError:
        future.set_result(None)
        return future

    def over() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        future.set_result(None)

    loop.add_reader(handle, over)
    return future


async def _look(health: Health, started: Started) -> None:
    before = health.reason
    while True:
        await asyncio.to_thread(health.look)
        unanswered = unanswered_in(started.last_words) if health.reason else None
        why = str(unanswered) if unanswered is not None else health.reason
        if why != before:
            before = why
            _tell("not ready" if why else "ready for requests", **({"why": why} if why else {}))
        await asyncio.sleep(_LOOK_S)


def _answers(health: Health) -> Any:
    """Nothing but ok or not ok: whoever may connect to the port learns no more."""

    async def answer(target: str) -> Answer:
        checks = {LIVE: health.alive, READY: health.ready}
        if target not in checks:
            return Answer(404, b"not found\n", "text/plain")
        return Answer(200, b"ok\n", "text/plain") if checks[target] else Answer(503, b"not ok\n", "text/plain")

    return answer


def _tell(event: str, **fields: Any) -> None:
    # As the replica tells events; whose they are is in their names.
    line = {"time": round(time.time(), 3), "event": f"pod {event}", **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
