"""The host's side of the simulated platform: launch enclaves, signal them, and see how they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ensconce.errors import UnreachableError
from ensconce.platform.simulated.wire import ask, short_name

__all__ = ["EnclaveEntry", "PlatformControl", "PlatformStatus"]

_TIMEOUT_S = 10.0
# Hashing the trusted files of a large image from a cold disk takes its time.
_LAUNCH_TIMEOUT_S = 120.0
_POLL_S = 0.01

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EnclaveEntry:
    """An enclave that was launched.

    Attributes:
        pid: its process id.
        mr_enclave: its measurement, 64 hexadecimal digits.
        running: it has not ended.
        exit_status: None while it runs; negative when a signal ended it.
    """

    pid: int
    mr_enclave: str
    running: bool
    exit_status: int | None


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The daemon, about itself.

    Attributes:
        pid: its process id.
        root: the vendor's root as policies name it, `simulated:<sha256>`.
        pccs: base URL of its PCCS, for example `http://127.0.0.1:8081`.
    """

    pid: int
    root: str
    pccs: str


class PlatformControl:
    """A client of the daemon; one connection for each call, so it may outlive the daemon and be shared by threads."""

    def __init__(self, socket: Path) -> None:
        """Talk to the daemon at ``socket``; nothing is opened yet."""
        self._socket = socket

    def wait(self, seconds: float) -> PlatformStatus:
        """Wait until the daemon answers.

        Args:
            seconds: how long to wait.

        Raises:
            UnreachableError: it did not within that time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.status()
            except UnreachableError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_S)

    def status(self) -> PlatformStatus:
        """Who the daemon is.

        Raises:
            UnreachableError: it does not answer.
        """
        answer = self._ask({"request": "status"})
        return _read(lambda: PlatformStatus(answer["pid"], answer["root"], answer["pccs"]))

    def launch(self, *, manifest: Path, sigstruct: Path, cwd: Path, stdout: Path, stderr: Path) -> int:
        """Check and start an enclave; returns its process id.

        Args:
            manifest: the signed manifest.
            sigstruct: the owner's SIGSTRUCT.
            cwd: working directory; relative trusted files are relative to it.
            stdout: file that its standard output is appended to.
            stderr: file that its standard error is appended to.

        Raises:
            IntegrityError: something differs from what was signed.
            InputError: it cannot be started.
            UnreachableError: the daemon does not answer.
        """
        paths = {"manifest": manifest, "sigstruct": sigstruct, "cwd": cwd, "stdout": stdout, "stderr": stderr}
        request = {"request": "launch"} | {name: str(path.absolute()) for name, path in paths.items()}
        answer = self._ask(request, _LAUNCH_TIMEOUT_S)
        return _read(lambda: int(answer["pid"]))

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to an enclave; it is no error if the enclave has ended.

        Raises:
            InputError: no such enclave, or not a signal for stopping (SIGTERM, SIGINT, SIGKILL, SIGHUP).
            UnreachableError: the daemon does not answer.
        """
        self._ask({"request": "signal", "pid": pid, "signal": int(number)})

    def list(self) -> tuple[EnclaveEntry, ...]:
        """The enclaves that run, and the last ones that ended.

        Raises:
            UnreachableError: the daemon does not answer.
        """
        answer = self._ask({"request": "list"})
        return _read(lambda: tuple(EnclaveEntry(**entry) for entry in answer["enclaves"]))

    def _ask(self, request: Mapping[str, Any], timeout: float = _TIMEOUT_S) -> dict[str, Any]:
        try:
            with short_name(self._socket) as path:
                return ask(path, request, timeout)
        except OSError as error:
            raise UnreachableError(
                "platform.daemon", f"there is no simulated platform at {self._socket}", found=error.strerror
            ) from error


def _read(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise UnreachableError("platform.daemon", "the simulated platform's answer cannot be read") from error
