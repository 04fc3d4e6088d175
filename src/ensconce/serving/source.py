"""Looks into the models' folders for the versions that are there, and says which are wanted.

Rules: sources/storage_path/file_system_storage_path_source.cc. What differs: a folder that cannot be read stops the
versions of its own model alone, and nothing is said again that has not changed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensconce.serving.version_policy import choose_versions

__all__ = ["FolderSource", "WatchedModel", "every"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchedModel:
    """A model whose folder is watched. ``policy`` is a ``FileSystemStoragePathSourceConfig.ServableVersionPolicy``."""

    name: str
    base_path: Path
    policy: Any


class FolderSource:
    """The folders of all models."""

    def __init__(self, want: Callable[[str, Mapping[int, Path]], None]) -> None:
        """Make it; nothing is watched yet.

        Args:
            want: is told, for a model, all versions that are wanted and their folders.
        """
        self._want = want
        self._lock = threading.Lock()
        self._models: dict[str, WatchedModel] = {}
        self._seen: dict[str, tuple[WatchedModel, tuple[str, ...]]] = {}
        self._complaints: dict[str, str] = {}

    def update(self, models: Sequence[WatchedModel]) -> frozenset[str]:
        """Watch these models from now on; of those that are watched no more, no version is wanted.

        Returns:
            The names that were not watched before.
        """
        with self._lock:
            names = {model.name for model in models}
            new = names - self._models.keys()
            for name in sorted(self._models.keys() - names):
                self._seen.pop(name, None)
                self._complaints.pop(name, None)
                self._want(name, {})
            self._models = {model.name: model for model in models}
            return frozenset(new)

    def poll(self) -> None:
        """Look into all folders once, and say what is wanted where that has changed."""
        with self._lock:
            for model in self._models.values():
                try:
                    names = tuple(sorted(os.listdir(model.base_path)))  # noqa: PTH208  # names as they are on the disk
                except OSError as error:
                    self._complain(model, f"Could not find base path {model.base_path} with error {error.strerror}")
                    continue
                self._complaints.pop(model.name, None)
                if self._seen.get(model.name) == (model, names):
                    continue
                self._seen[model.name] = (model, names)
                chosen = choose_versions(model.name, model.policy, names)
                if not chosen:
                    _log.warning("model %s: nothing under %s is named as a number", model.name, model.base_path)
                self._want(model.name, {version: model.base_path / name for version, name in chosen.items()})

    def _complain(self, model: WatchedModel, text: str) -> None:
        """Log once what would be found again at every look."""
        if self._complaints.get(model.name) != text:
            self._complaints[model.name] = text
            _log.warning("model %s: %s", model.name, text)


def every(seconds: float, function: Callable[[], None], stop: threading.Event, name: str) -> threading.Thread:
    """Call a function every so many seconds, in a thread of that name, until ``stop`` is set. Errors are logged."""

    def run() -> None:
        while not stop.wait(seconds):
            try:
                function()
            except Exception as error:
                _log.exception("%s: %s", name, type(error).__name__)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
