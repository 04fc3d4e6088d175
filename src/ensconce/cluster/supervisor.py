"""Keeps a deployment running on this machine: the simulated platform, the gateway, and the replicas.

One process, one thread, one loop: it looks at its children ten times a second and answers the host's commands in
between. When it goes, everything that it started goes with it (the children ask the kernel for that).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensconce.addresses import Address
from ensconce.cluster import control
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.machine import start_platform
from ensconce.cluster.replica import Replica, State
from ensconce.enclave.build import MANIFEST, SIGSTRUCT
from ensconce.errors import EnsconceError, InputError
from ensconce.files import system_error
from ensconce.gateway import Backend, Gateway, open_gateway

__all__ = ["MAX_REPLICAS", "Supervisor", "main"]

MAX_REPLICAS = 64
_TICK_S = 0.1
_GRACE_S = 15.0
_GATEWAY_RETRY_S = 1.0

_log = logging.getLogger("ensconce.supervisor")


class Supervisor:
    """The host's side of one deployment.

    Args:
        host: the folder with ``ensconce.yaml``, ``enclave/`` and ``models/``; ``run/`` in it is for what running makes.

    Raises:
        InputError: the folder is not a bundle, another supervisor runs it, or a port is taken.
    """

    def __init__(self, host: Path) -> None:
        self._host = host
        self._run = host / "run"
        self._deployment = Deployment.load(host / "ensconce.yaml")
        if self._deployment.platform.kind != "simulated":
            raise InputError(
                "host.platform",
                "`ensconce up` starts enclaves of the simulated platform alone",
                found=f"platform.kind {self._deployment.platform.kind}",
                remedy="start this one with `gramine-sgx enclave/server` or `ensconce replica run`, or on Kubernetes",
            )
        for needed in (MANIFEST, SIGSTRUCT, "models"):
            if not (host / needed).exists():
                raise InputError(
                    "host.bundle",
                    f"{host} lacks {needed}",
                    remedy="copy the owner's bundle/ here, after `ensconce enclave build` and `ensconce model seal`",
                )
        (self._run / "logs").mkdir(parents=True, exist_ok=True)
        # Held until this process ends, which is how `ensconce down` knows that everything has.
        if control.take_lock(self._run) is None:
            raise InputError(
                "host.running", f"{host} is up already", remedy="`ensconce status`, or `ensconce down` first"
            )
        self._wanted = self._deployment.replicas
        self._replicas: list[Replica] = []
        self._numbers = 0
        self._outdated = 0
        self._stopping = False
        self._gateway_retry_at = 0.0
        service = self._deployment.service
        self._gateway: Gateway = open_gateway(
            self._deployment.gateway,
            self._run / "gateway",
            grpc=Address.parse(service.grpc),
            rest=Address.parse(service.rest),
            domain=service.domain,
        )
        self._platform = start_platform(self._run, pccs=Address.parse(self._deployment.platform.pccs))

    def run(self) -> None:
        """Start everything, serve commands until told to stop, then stop everything."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with contextlib.ExitStack() as closing:
            closing.callback(self._platform.close)
            closing.callback(self._gateway.stop)
            self._gateway.start(self._backends())
            # From here on the host's commands find it: what could fail at once has not.
            server = closing.enter_context(control.listen(self._run))
            closing.callback((self._run / "control.sock").unlink, missing_ok=True)
            while self._replicas or not self._stopping:
                self._tick()
                readable, _, _ = select.select([server.fileno(), wake_read], [], [], _TICK_S)
                if wake_read in readable and set(os.read(wake_read, 64)) & {signal.SIGTERM, signal.SIGINT}:
                    self._stopping = True
                if server.fileno() in readable:
                    self._serve(server)

    def _tick(self) -> None:
        now = time.monotonic()
        self._match_wanted(now)
        ended = {entry.pid: entry.exit_status for entry in self._platform.control.list()}
        changed = False
        for replica in self._replicas:
            before = replica.state
            changed |= replica.look(self._platform.control, ended.get(replica.pid or 0, -1), now)
            if replica.state is not before:
                _log.info("%s is %s", replica.name, replica.state.value)
        left = [replica for replica in self._replicas if replica.state is not State.STOPPED]
        self._replicas = left
        if not self._stopping and (changed or not self._gateway.running):
            self._refresh_gateway(now)

    def _refresh_gateway(self, now: float, leaving: Sequence[Replica] = ()) -> None:
        """Tell the gateway which replicas stay; a gateway that has died is started again, but not all the time."""
        try:
            if self._gateway.running:
                self._gateway.reload(self._backends(leaving))
            elif now >= self._gateway_retry_at:
                self._gateway_retry_at = now + _GATEWAY_RETRY_S
                _log.warning("the gateway has died; starting it again")
                self._gateway.stop()
                self._gateway.start(self._backends())
        except (InputError, OSError) as error:
            _log.error("%s", error)

    def _match_wanted(self, now: float) -> None:
        wanted = 0 if self._stopping else self._wanted
        alive = [replica for replica in self._replicas if replica.state is not State.STOPPING]
        old = [] if self._stopping else [replica for replica in alive if replica.number <= self._outdated]
        new = [replica for replica in alive if replica not in old]
        settled = all(replica.state is State.READY for replica in new)
        if not old:
            leaving = alive[wanted:]
        elif new and settled:
            leaving = old[: max(0, len(alive) - wanted)]
        else:
            # One more than wanted while replicas are replaced: the new one serves before the old one goes.
            leaving = alive[wanted + 1 :]
        if leaving and not self._stopping:
            # Out of the line first, so that no new connection meets a replica on its way out.
            self._refresh_gateway(now, leaving)
        for replica in leaving:
            replica.stop(self._platform.control, now, _GRACE_S)
        for _ in range(wanted - len(alive) + (1 if old and settled else 0)):
            self._numbers += 1
            replica = Replica(self._numbers, self._host)
            self._replicas.append(replica)
            replica.launch(self._platform.control, now)

    def _backends(self, leaving: Sequence[Replica] = ()) -> list[Backend]:
        return [
            Backend(name=replica.name, host="127.0.0.1", grpc_port=replica.ready.grpc, rest_port=replica.ready.rest)
            for replica in self._replicas
            if replica.state is State.READY and replica.ready is not None and replica not in leaving
        ]

    def _serve(self, server: socket.socket) -> None:
        stream, _ = server.accept()
        with stream:
            stream.settimeout(1.0)
            try:
                answer = self._answer(control.read_message(stream))
            except EnsconceError as error:
                answer = control.refusal(error)
            except (OSError, ValueError):
                return
            try:
                stream.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                _log.info("a command went away before its answer")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"do": "status"}:
                return self._status()
            case {"do": "scale", "replicas": int(wanted)} if 1 <= wanted <= MAX_REPLICAS:
                self._wanted = wanted
                return self._status()
            case {"do": "roll"}:
                self._outdated = self._numbers
                return self._status()
            case {"do": "stop"}:
                self._stopping = True
                return self._status()
        raise InputError(
            "host.control",
            "the supervisor does not know this request",
            found=json.dumps(request)[:200],
            rule=f"status, scale with 1 to {MAX_REPLICAS} replicas, roll, or stop",
        )

    def _status(self) -> dict[str, Any]:
        service = self._deployment.service
        return {
            "service": {"domain": service.domain, "grpc": service.grpc, "rest": service.rest},
            "gateway": self._gateway.kind,
            "gateway_about": self._gateway.about,
            "platform": self._deployment.platform.kind,
            "wanted": 0 if self._stopping else self._wanted,
            "rolling": any(replica.number <= self._outdated for replica in self._replicas),
            "replicas": [replica.describe() for replica in self._replicas],
        }


def main(arguments: list[str]) -> int:
    """Run the supervisor of the folder in ``arguments[0]``.

    What ends it goes to the log, and as JSON to standard output: a pipe that ``ensconce up`` reads, so that it is told
    even where the disk is full.
    """
    host = Path(arguments[0]).resolve()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Until the loop listens for it, a signal undoes what was started; `run` replaces this.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, control.INTERRUPTIONS)
    try:
        Supervisor(host).run()
    except (EnsconceError, OSError) as error:
        known = system_error(error) if isinstance(error, OSError) else error
        _log.error("%s", known)
        with contextlib.suppress(BrokenPipeError):
            os.write(1, json.dumps(control.refusal(known)).encode())
        return known.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
