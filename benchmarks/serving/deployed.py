"""Our server as it is deployed: sealed models, a replica on the simulated platform, TLS that ends in it, a gateway."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.serving.processes import Process, StartError, free_ports

__all__ = ["DOMAIN", "Deployment"]

DOMAIN = "bench.example.test"
_COMMAND_S = 300


class Deployment:
    """An owner's folder, a host's folder, a provisioning server, and ``ensconce up`` with one replica."""

    def __init__(self, root: Path, models: Mapping[str, Path], *, serving: str = "") -> None:
        """Prepare nothing yet.

        Args:
            root: for everything; emptied.
            models: converted models by name.
            serving: lines below ``serving:`` in ``ensconce.yaml``.
        """
        self._root, self._models, self._serving = root, models, serving
        self.grpc = self.rest = self.pccs = 0
        self._provisioning: Process | None = None

    @property
    def policy(self) -> Path:
        """What clients accept."""
        return self._root / "owner" / "policy.yaml"

    @property
    def ca(self) -> Path:
        """The certificate authority that the replica's certificate is from."""
        return self._root / "owner" / "ca.pem"

    def start(self) -> None:
        """Everything from ``ensconce init`` to ``ensconce up``.

        Raises:
            StartError: a command failed.
        """
        self.grpc, self.rest, provisioning, self.pccs = free_ports(4)
        listening = {"grpc": self.grpc, "rest": self.rest, "provisioning": provisioning, "pccs": self.pccs}
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True)
        owner, host = str(self._root / "owner"), str(self._root / "host")
        names = [part for name in self._models for part in ("--model", name)]
        ports = [part for name, port in listening.items() for part in (f"--{name}", f"127.0.0.1:{port}")]
        self._run("init", owner, "--domain", DOMAIN, "--replicas", "1", *names, *ports)
        if self._serving:
            with (self._root / "owner" / "ensconce.yaml").open("a") as file:
                file.write(f"\nserving:\n{self._serving}")
        for name, folder in self._models.items():
            self._run("model", "seal", str(folder), "--name", name, "--version", "1", "--owner", owner)
        self._run("enclave", "build", "--owner", owner)
        self._run("policy", "write", "--owner", owner)
        self._provisioning = Process(
            [sys.executable, "-P", "-m", "ensconce", "provision", "serve", "--owner", owner],
            self._root / "provision.log",
            cwd=self._root,
            env=self._environment(),
        )
        self._provisioning.listens(provisioning)
        shutil.copytree(self._root / "owner" / "bundle", host)
        self._run("up", "--host", host)

    def stop(self) -> None:
        """``ensconce down``, and the provisioning server's end."""
        if (self._root / "host").is_dir():
            with contextlib.suppress(StartError, subprocess.SubprocessError):
                self._run("down", "--host", str(self._root / "host"))
        if self._provisioning is not None:
            self._provisioning.stop()

    def replica_pid(self) -> int:
        """Of the process that serves."""
        [replica] = json.loads(self._run("status", "--host", str(self._root / "host"), "--json"))["replicas"]
        found: int = replica["pid"]
        return found

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ensconce", *arguments],
            env=self._environment(),
            cwd=self._root,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise StartError(f"ensconce {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return dict(os.environ, NO_COLOR="1", ENSCONCE_SIMULATED_HOME=str(self._root / "platform"))
