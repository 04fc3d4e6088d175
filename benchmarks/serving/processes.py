"""Servers as processes: started, waited for, stopped in their tracks while others are measured, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

__all__ = ["Process", "StartError", "environment", "free_ports", "wait_until"]

_START_S = 180.0
_STOP_S = 10.0


class StartError(Exception):
    """Something did not start."""


class Process:
    """A command in a process group of its own, with all that it starts."""

    def __init__(self, command: Iterable[str | Path], log: Path, *, cwd: Path, env: Mapping[str, str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def listens(self, port: int) -> None:
        """Wait until ``port`` answers; raises StartError when that does not happen."""

        def there() -> bool:
            if self._process.poll() is not None:
                raise StartError(f"ended with status {self._process.returncode}; see {self.log}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(there, f"port {port} of {self.log.stem}")

    def pause(self) -> None:
        """Let it have no processor at all."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, and what is left of its group."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def wait_until(there: Callable[[], bool], what: str, seconds: float = _START_S) -> None:
    """Ask until it is so; raises StartError when that takes too long."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise StartError(f"{what} is not there after {seconds:.0f} seconds")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that are free now."""
    with contextlib.ExitStack() as held:
        found = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
    return found


def environment() -> dict[str, str]:
    """The caller's, with this very ``ensconce`` in front."""
    import ensconce

    return dict(os.environ, PYTHONPATH=str(Path(ensconce.__file__).parents[1]))
