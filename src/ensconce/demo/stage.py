"""The stage: a folder for each party, free ports, and every command in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensconce.addresses import hold_port
from ensconce.demo.data import digits_folder
from ensconce.enclave.layers import default_cache
from ensconce.errors import EnsconceError, restore

__all__ = ["DOMAIN", "Ports", "Stage", "arguments_of", "processes_below"]

DOMAIN = "digits.example.test"
_COMMAND_S = 120


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback address."""

    grpc: int
    rest: int
    provisioning: int
    pccs: int

    @classmethod
    @contextlib.contextmanager
    def held(cls) -> Iterator[Ports]:
        """Four ports that come to nobody else, whenever their servers begin."""
        with contextlib.ExitStack() as holders:
            yield cls(*(holders.enter_context(hold_port()).getsockname()[1] for _ in range(4)))


@dataclass
class Stage:
    """Three parties and the machine's simulated CPU, each with a folder below ``root``."""

    root: Path
    ports: Ports
    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def owner(self) -> Path:
        """The owner's folder."""
        return self.root / "owner"

    @property
    def host(self) -> Path:
        """The host's folder."""
        return self.root / "host"

    @property
    def client(self) -> Path:
        """The client's folder."""
        return self.root / "client"

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Stage]:
        """A stage in a fresh temporary folder; at the end everything is stopped and the folder removed."""
        with Ports.held() as ports:
            stage = cls(Path(tempfile.mkdtemp(prefix="ensconce-demo-")), ports)
            try:
                stage.client.mkdir()
                yield stage
            finally:
                stage.clear()
                shutil.rmtree(stage.root, ignore_errors=True)

    def run(self, *arguments: str, party: str = "owner") -> Any:
        """Run ``ensconce ARGUMENTS``; its JSON where it printed some, else its text.

        Raises:
            EnsconceError: what the command said, of the kind of its exit status.
        """
        return self.program("ensconce", *arguments, party=party)

    def program(self, module: str, *arguments: str, party: str) -> Any:
        """Run ``python -m MODULE ARGUMENTS``, otherwise as :meth:`run`."""
        done = subprocess.run(
            _command(module, *arguments),
            env=self._environment(party),
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        printed = _json(done.stdout)
        if done.returncode:
            fields = printed.get("error") if isinstance(printed, dict) else None
            raise restore(fields or _unsaid(arguments, done.stderr), done.returncode)
        return printed if printed is not None else done.stdout

    def serve(self, *arguments: str, until: str, party: str = "owner") -> subprocess.Popen[str]:
        """Start ``ensconce ARGUMENTS`` as a server, and wait for the line that holds ``until``.

        Raises:
            EnsconceError: it ended before it said so.
        """
        process = subprocess.Popen(
            _command("ensconce", *arguments),
            env=self._environment(party),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.servers.append(process)
        assert process.stderr is not None
        said = ""
        while until not in said:
            readable, _, _ = select.select([process.stderr], [], [], _COMMAND_S)
            line = process.stderr.readline() if readable else ""
            if not line:
                self.end(process)
                raise restore(_unsaid(arguments, said), process.returncode)
            said += line
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Stop a server and wait until it is gone."""
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process in self.servers:
            self.servers.remove(process)

    def init(self, folder: Path, party: str = "owner") -> None:
        """``ensconce init`` with this stage's ports."""
        here = "127.0.0.1:"
        self.run(
            *("init", str(folder), "--domain", DOMAIN, "--model", "digits"),
            *("--grpc", f"{here}{self.ports.grpc}", "--rest", f"{here}{self.ports.rest}"),
            *("--provisioning", f"{here}{self.ports.provisioning}", "--pccs", f"{here}{self.ports.pccs}"),
            party=party,
        )

    def provision_serve(self, *arguments: str, party: str = "owner") -> subprocess.Popen[str]:
        """``ensconce provision serve``, once it listens."""
        return self.serve("provision", "serve", *arguments, until="provisioning server", party=party)

    @contextlib.contextmanager
    def other_provisioning(self, *arguments: str, party: str = "owner") -> Iterator[None]:
        """Another provisioning server at the owner's address, after hers was stopped."""
        for process in list(self.servers):
            self.end(process)
        other = self.provision_serve(*arguments, party=party)
        try:
            yield
        finally:
            self.end(other)

    def verify(self, port: int) -> Any:
        """``ensconce verify`` as the client."""
        return self.run("verify", f"127.0.0.1:{port}", *self._client_options("policy.yaml"), "--json", party="client")

    def predict(self, port: int, policy: Path) -> Any:
        """``ensconce predict`` of one image as the client, through ``port``, under ``policy``."""
        return self.run(
            *("predict", f"127.0.0.1:{port}", *self._client_options(policy.name)),
            *("--model", "digits", "--input", str(digits_folder() / "heldout.npz"), "--limit", "1", "--json"),
            party="client",
        )

    def _client_options(self, policy: str) -> list[str]:
        return [
            *("--server-name", DOMAIN, "--policy", str(self.client / policy), "--ca", str(self.client / "ca.pem")),
            *("--pccs", f"http://127.0.0.1:{self.ports.pccs}"),
        ]

    def clear(self) -> None:
        """Stop every process that is left."""
        with contextlib.suppress(EnsconceError, subprocess.SubprocessError):
            if (self.host / "run").is_dir():
                self.run("down", "--host", str(self.host), party="host")
        for process in list(self.servers):
            self.end(process)
        for pid in processes_below(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _environment(self, party: str) -> Mapping[str, str]:
        """The caller's environment, with caches of the party's own but that of compiled images, slow to fill."""
        caches = self.root / f"{party}-cache"
        images = caches / "ensconce" / "images"
        if not images.is_symlink():
            images.parent.mkdir(parents=True)
            shared = default_cache()
            shared.mkdir(parents=True, exist_ok=True)
            images.symlink_to(shared)
        # Whatever happens to a command, nothing of it is left in the machine's own temporary folder.
        scratch = self.root / f"{party}-tmp"
        scratch.mkdir(exist_ok=True)
        own = {"ENSCONCE_SIMULATED_HOME": self.root / "platform", "XDG_CACHE_HOME": caches, "TMPDIR": scratch}
        own["XDG_STATE_HOME"] = self.root / f"{party}-state"
        return dict(os.environ, NO_COLOR="1", **{name: str(path) for name, path in own.items()})


def arguments_of(pid: int) -> str:
    """The command line of a process; empty once it has ended (proc(5))."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def processes_below(folder: Path) -> list[int]:
    """Processes, other than this one, that work in ``folder`` or name it in their arguments (proc(5))."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if str(folder) in arguments_of(int(entry.name)) or (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", module, *arguments]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _unsaid(arguments: tuple[str, ...], stderr: str) -> dict[str, str]:
    lines = stderr.strip().splitlines() or ["it said nothing"]
    return {"check": "demo.command", "problem": f"ensconce {arguments[0]} failed", "found": lines[-1]}
