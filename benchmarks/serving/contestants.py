"""Who is measured: each can be started, asked for classes, asked under load, set aside; and those without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks.serving.processes import StartError, environment
from benchmarks.serving.results import Request

__all__ = ["UNBOUNDED", "Contestant", "InProcess", "Settings"]

HERE = Path(__file__).parent
# For clients in Python, whose limit is 4 MiB.
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        work: for everything that is made.
        models: converted models by the name under which they are served.
        saved_models: what they were converted from.
        inputs: the name of each one's input.
        environments: holds the other servers' environments by name.
        tensorflow: the Python of the environment with TensorFlow.
    """

    work: Path
    models: Mapping[str, Path]
    saved_models: Mapping[str, Path]
    inputs: Mapping[str, str]
    environments: Path
    tensorflow: Path


class Contestant(Protocol):
    """One of them."""

    def start(self) -> None:
        """Make it ready to answer."""

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Ask it once."""

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """Ask it under load."""

    def pause(self) -> None:
        """Set it aside while others are measured."""

    def resume(self) -> None:
        """Take it up again."""

    def stop(self) -> None:
        """End it."""


class InProcess:
    """The engine alone, or TensorFlow: no server at all."""

    def __init__(self, settings: Settings, engine: str) -> None:
        ours = engine == "ensconce"
        self._folder = settings.work / "images"
        python = sys.executable if ours else settings.tensorflow
        models = settings.models if ours else settings.saved_models
        self._command = [python, HERE / "in_process.py", engine, *(f"{name}={path}" for name, path in models.items())]
        self._log = settings.work / "logs" / f"{engine}.log"
        self._files: dict[tuple[int, ...], Path] = {}
        self._talk: _Talk | None = None

    def start(self) -> None:
        """Load the models."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._talk = _Talk(self._command, self._log)

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image."""
        found: list[int] = self._order(model=model, images=str(self._file(images)), classes=True)
        return found

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """From ``concurrency`` threads."""
        order = {"model": model, "images": str(self._file(images)), "concurrency": concurrency, "requests": requests}
        return sorted((Request(*each) for each in self._order(**order)), key=lambda request: request.end)

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing was paused."""

    def stop(self) -> None:
        """End the process."""
        if self._talk is not None:
            self._talk.close()

    def _order(self, **order: Any) -> Any:
        assert self._talk is not None
        return self._talk.ask(order)

    def _file(self, images: np.ndarray) -> Path:
        path = self._folder / f"{'x'.join(map(str, images.shape))}.npy"
        if images.shape not in self._files:
            np.save(path, images)
            self._files[images.shape] = path
        return path


class _Talk:
    """A process that answers JSON lines."""

    def __init__(self, command: list[Any], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        self._log = log
        self._answer()

    def ask(self, order: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StartError(f"ended without an answer; see {self._log}")
        return json.loads(line)
