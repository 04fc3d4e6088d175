"""One replica on this machine: its folder, its process, and what it has said of itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ensconce.enclave.build import MANIFEST, SIGSTRUCT
from ensconce.enclave.telling import UNANSWERED
from ensconce.errors import EnsconceError, InputError, UnreachableError, restore
from ensconce.files import system_error
from ensconce.platform.simulated.control import PlatformControl
from ensconce.strict import StrictModel

__all__ = ["Ready", "Replica", "State", "last_words", "unanswered_in", "words_in"]

_LAST_LINES = 8192
_LAST_LINE = 300
_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0


class State(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Ready(StrictModel):
    """What a replica writes to ``ready.json`` when it serves; advice to the gateway, never a proof of anything."""

    grpc: Annotated[int, Field(ge=1, le=65535)]
    rest: Annotated[int, Field(ge=1, le=65535)]
    key_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    servables: list[str]


class Replica:
    """A replica that the supervisor keeps alive.

    Args:
        number: from 1 up; names the folder and the log files.
        host: the host's folder, which holds ``enclave/`` and ``models/``.
    """

    def __init__(self, number: int, host: Path) -> None:
        self.number = number
        self.name = f"replica-{number}"
        self.folder = host / "run" / "replicas" / str(number)
        self.log = host / "run" / "logs" / f"{self.name}.log"
        self.errors = host / "run" / "logs" / f"{self.name}.err"
        self._host = host
        self.state = State.STOPPED
        self.pid: int | None = None
        self.ready: Ready | None = None
        self._written = 0
        self.error: dict[str, str] | None = None
        self.exit_status: int | None = None
        self.restarts = 0
        self.retry_at = 0.0
        self.stop_by = 0.0

    def launch(self, platform: PlatformControl, now: float) -> None:
        """Start the enclave in a fresh folder of its own; what keeps it from starting becomes its error."""
        self.ready = None
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            for name in ("enclave", "models"):
                (self.folder / name).symlink_to(self._host / name)
            self.errors.unlink(missing_ok=True)
            self.pid = platform.launch(
                manifest=self._host / MANIFEST,
                sigstruct=self._host / SIGSTRUCT,
                cwd=self.folder,
                stdout=self.log,
                stderr=self.errors,
            )
        except (EnsconceError, OSError) as error:
            known = system_error(error) if isinstance(error, OSError) else error
            self._fail(known.fields(), known.exit_status, now)
        else:
            self.state = State.STARTING

    def stop(self, platform: PlatformControl, now: float, grace: float) -> None:
        """Ask the replica to finish what it is doing and leave; ``look`` kills it when ``grace`` seconds are over."""
        if self.state in (State.STARTING, State.READY) and self.pid is not None:
            platform.signal(self.pid, signal.SIGTERM)
            self.state = State.STOPPING
            self.stop_by = now + grace
        elif self.state is State.FAILED:
            self.state = State.STOPPED

    def look(self, platform: PlatformControl, exit_status: int | None, now: float) -> bool:
        """Bring the state up to date; true when the set of ready replicas has changed.

        Args:
            platform: the machine's platform.
            exit_status: of the replica's process; None while it runs.
            now: monotonic seconds.
        """
        match self.state:
            case State.STARTING if exit_status is not None:
                self._fail(self._last_words(), exit_status, now)
            case State.STARTING:
                self.ready = self._read_ready()
                if self.ready is not None:
                    self.state = State.READY
                    self.error = None
                    return True
            case State.READY if exit_status is not None:
                self._fail(self._last_words(), exit_status, now)
                return True
            case State.READY:
                self._follow()
            case State.FAILED if now >= self.retry_at:
                self.restarts += 1
                self.launch(platform, now)
            case State.STOPPING if exit_status is not None:
                self.state = State.STOPPED
            case State.STOPPING if now >= self.stop_by and self.pid is not None:
                platform.signal(self.pid, signal.SIGKILL)
                self.stop_by = now + 1.0
        return False

    def describe(self) -> dict[str, Any]:
        """The replica as ``ensconce status --json`` shows it."""
        unanswered = unanswered_in(_end(self.log)) if self.state is State.STARTING else None
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "grpc_port": self.ready.grpc if self.ready else None,
            "rest_port": self.ready.rest if self.ready else None,
            "key_sha256": self.ready.key_sha256 if self.ready else None,
            "servables": self.ready.servables if self.ready else [],
            "restarts": self.restarts,
            "error": unanswered.fields() if unanswered else self.error,
            "exit_status": UnreachableError.exit_status if unanswered else self.exit_status,
        }

    def _fail(self, error: dict[str, str], exit_status: int, now: float) -> None:
        self.state = State.FAILED
        self.ready = None
        self.error = error
        self.exit_status = exit_status
        self.retry_at = now + min(_FIRST_RETRY_S * 2**self.restarts, _LONGEST_RETRY_S)

    def _follow(self) -> None:
        """Read ``ready.json`` again where it is another file now: other versions are served, or another key."""
        try:
            written = (self.folder / "ready.json").stat().st_mtime_ns
            if written != self._written:
                self._written, self.ready = written, self._read_ready() or self.ready
        except (InputError, OSError):
            return  # What it said before is the best that is known, until its process ends.

    def _read_ready(self) -> Ready | None:
        path = self.folder / "ready.json"
        try:
            return Ready.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise InputError(
                "replica.ready", f"{path} cannot be read", found=type(error).__name__, remedy="restart the replica"
            ) from error

    def _last_words(self) -> dict[str, str]:
        return last_words(self.errors, self.name)


def last_words(errors: Path, name: str) -> dict[str, str]:
    """The error that a replica printed last to its file ``errors``, or a pointer to that file."""
    return words_in(_end(errors), name, str(errors))


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_LINES))
            return file.read(_LAST_LINES)
    except OSError:
        return b""


def unanswered_in(tail: bytes) -> EnsconceError | None:
    """Why a replica that is starting has no keys yet, in the end of what it has told; None unless that came last."""
    for line in reversed(tail.decode(errors="replace").splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told = json.loads(line)
            event = told.pop("event")
            fields = {name: str(value) for name, value in told.items()}
            return restore(fields, UnreachableError.exit_status) if event == UNANSWERED else None
    return None


def words_in(tail: bytes, name: str, place: str) -> dict[str, str]:
    """The error that was printed last in the end of a replica's output; or its last line, and where all of it is."""
    printed = tail.decode(errors="replace").splitlines()
    for line in reversed(printed):
        try:
            fields = json.loads(line)["error"]
            return {str(key): str(value) for key, value in fields.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    remedy = f"read {place}; where that is empty, the disk may be full, or the process was killed"
    last = next((line.strip() for line in reversed(printed) if line.strip()), "")
    found = {"found": last[:_LAST_LINE]} if last else {}
    return {"check": "replica.exit", "problem": f"{name} ended without saying why", **found, "remedy": remedy}
