"""The models that a configuration names, as long as it is in force: folders watched, versions loaded, labels given.

The original's ``ServerCore`` (model_servers/server_core.cc) with the polling of model_servers/server.cc.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.serving.lifecycle import Lifecycle
from ensconce.serving.loading import Loader, LoadOptions, told
from ensconce.serving.manager import ModelManager, VersionStatus
from ensconce.serving.model_config import check_config, labels_of, models_of
from ensconce.serving.source import FolderSource, every
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.text import MAX_TEXT, parse_text

__all__ = ["CoreOptions", "ServerCore"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CoreOptions:
    """How a configuration is followed; names and defaults of the original's flags.

    Attributes:
        loading: how versions are loaded.
        initial_load_threads: loads at once until the models of the first configuration are there.
        file_system_poll_wait_seconds: seconds between two looks into the models' folders; 0 looks once for each
            configuration, negative never.
        allow_version_labels_for_unavailable_models: whether a new label may mean a version that is not available.
    """

    loading: LoadOptions = field(default_factory=LoadOptions)
    initial_load_threads: int = field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    file_system_poll_wait_seconds: float = 1
    allow_version_labels_for_unavailable_models: bool = False


class ServerCore:
    """Serves what its configuration says; without one, nothing."""

    def __init__(
        self,
        loader: Loader,
        options: CoreOptions | None = None,
        *,
        manager: ModelManager | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it and the thread that loads and unloads; :meth:`close` ends that.

        Args:
            loader: makes a servable of a version's folder.
            options: see there.
            manager: where versions are put; one of its own where none is given.
            clock: seconds, for the time between two tries.
        """
        self.manager = manager or ModelManager()
        self._options = options or CoreOptions()
        self._lifecycle = Lifecycle(self.manager, loader, self._options.loading, clock=clock)
        self._source = FolderSource(self._lifecycle.want)
        self._lock = threading.Lock()
        self._config = ModelServerConfig()
        self._stop = threading.Event()
        self._pollers: list[threading.Thread] = []
        self._lifecycle.start()

    @property
    def config(self) -> Any:
        """The ``ModelServerConfig`` in force; empty before the first. Not to be changed."""
        return self._config

    def reload(self, config: Any, *, wait: bool = True) -> None:
        """Put a configuration in force, and wait until the models that are new in it can be served.

        As ``ServerCore::ReloadConfig``: a model that is not in it is unloaded; one with another folder or policy
        changes without being waited for, and a version that stays keeps what it was loaded from. A configuration that
        is refused changes nothing. When a new model cannot be loaded, the configuration is in force all the same.

        Args:
            config: ``ModelServerConfig``.
            wait: whether to wait; for a model without a version that is until it has one or is taken out.

        Raises:
            RequestError: as :func:`~ensconce.serving.model_config.check_config` and :meth:`ModelManager.label`;
                UNKNOWN, a new model could not be loaded; ABORTED, one was taken out while it was waited for;
                UNAVAILABLE, the server stops.
        """
        with self._lock:
            check_config(self._config, config)
            if config.WhichOneof("config") is None:
                _log.info("an empty configuration: nothing to do")
                return
            allow = self._options.allow_version_labels_for_unavailable_models
            self.manager.label(labels_of(config), allow_unavailable=allow)
            first = self._config.WhichOneof("config") is None
            if first and wait:
                self._lifecycle.load_threads(self._options.initial_load_threads)
            new = self._apply(config, first)
        if wait:
            try:
                self._wait(new, "servable" if first else "model")
            finally:
                if first:
                    self._lifecycle.load_threads()

    def poll(self) -> None:
        """Look into the models' folders now."""
        self._source.poll()

    def follow(self, path: Path, seconds: float) -> None:
        """Read a configuration file every so many seconds and put it in force when it is not; 0 and less: never.

        What cannot be read, or is refused, is logged and tried again; the configuration in force stays.
        """
        if seconds > 0:
            follower = _Follower(self, path)
            self._pollers.append(every(seconds, follower.look, self._stop, "configuration file"))

    def close(self) -> None:
        """Stop looking and loading. What is loaded goes when nobody holds the manager."""
        self._stop.set()
        self._lifecycle.close()
        for thread in self._pollers:
            thread.join()

    def _apply(self, config: Any, first: bool) -> frozenset[str]:
        copy = ModelServerConfig()
        copy.CopyFrom(config)
        self._config = copy
        seconds = self._options.file_system_poll_wait_seconds
        new = self._source.update(models_of(copy))
        if seconds >= 0:
            self._source.poll()
        if first and seconds > 0:
            self._pollers.append(every(seconds, self._source.poll, self._stop, "model folders"))
        # Who waits for a model that is gone now waits no more.
        self._lifecycle.look()
        return new

    def _wait(self, names: frozenset[str], what: str) -> None:
        failures = self._lifecycle.wait(names, lambda: names <= self._names())
        if failures is None:
            if self._stop.is_set():
                raise RequestError(Code.UNAVAILABLE, "The server is stopping")
            raise RequestError(Code.ABORTED, "Another config took models out while they were waited for")
        if failures:
            models = "".join(f"{{{_id(name, status)} due to error: {told(status)}}}, " for name, status in failures)
            raise RequestError(Code.UNKNOWN, f"{len(failures)} {what}(s) did not become available: {{{models}}}")

    def _names(self) -> set[str]:
        return {model.name for model in self._config.model_config_list.config}


class _Follower:
    """The configuration file, as it was read last."""

    def __init__(self, core: ServerCore, path: Path) -> None:
        self._core = core
        self._path = path
        self._data = b""
        self._config: Any = None
        self._complaint = ""

    def look(self) -> None:
        """Put the file in force if it is not."""
        complaint = ""
        try:
            self._read()
            if self._config != self._core.config:
                # Nobody here needs the models to be there: waiting would only keep the next version from being read.
                self._core.reload(self._config, wait=False)
        except InputError as error:
            complaint = f"Failed to read ModelServerConfig file: {error}"
        except RequestError as error:
            complaint = f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.problem}"
        if complaint and complaint != self._complaint:
            _log.error("%s", complaint)
        self._complaint = complaint

    def _read(self) -> None:
        data = read_bounded(self._path, MAX_TEXT)
        if self._config is None or data != self._data:
            self._config = parse_text(ModelServerConfig, data, str(self._path))
            self._data = data


def _id(name: str, status: VersionStatus) -> str:
    return f"{{name: {name} version: {status.version}}}"
