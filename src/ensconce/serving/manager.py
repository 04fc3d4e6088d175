"""Which versions of which models are loaded, and which of them answers a request.

Readers never wait: the tables are replaced as a whole by whoever changes them. Texts are TensorFlow Serving's
(core/basic_manager.cc, model_servers/server_core.cc, model_servers/get_model_status_impl.cc).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ensconce.errors import InputError
from ensconce.serving.engines import Servable
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["LoadedServable", "ModelManager", "State", "VersionStatus"]

_ENDED_KEPT: Final = 100
"""Versions of a model that have ended and are still told about; the oldest are forgotten."""


class State(IntEnum):
    """Where a version is in its life; the numbers of ``tensorflow.serving.ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class LoadedServable:
    """A version that is ready to answer. It is freed when nobody holds it any more: who answers a request holds it."""

    name: str
    version: int
    servable: Servable


@dataclass(frozen=True)
class VersionStatus:
    """A version, its state, and the error that ended it, if one did."""

    version: int
    state: State
    code: Code = Code.OK
    text: str = ""


@dataclass(frozen=True)
class _Versions:
    """The loaded versions of a model, never none, and the highest of them."""

    latest: LoadedServable
    by_number: Mapping[int, LoadedServable]


class ModelManager:
    """The versions of all models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, _Versions] = {}
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}

    def add(self, name: str, version: int, servable: Servable) -> LoadedServable:
        """Make a version available.

        Args:
            name: the model's name, not empty.
            version: its version, 0 or more.
            servable: what answers for it.

        Raises:
            InputError: the name is empty, the version negative, or there already.
        """
        if not name or version < 0:
            raise InputError(
                "serving.model",
                "a model needs a name and a version that is 0 or more",
                found=f"{name!r}, {version}",
                remedy="name the folder models/<name>/<version>",
            )
        loaded = LoadedServable(name, version, servable)
        with self._lock:
            versions = self._loaded(name)
            if version in versions:
                raise InputError(
                    "serving.model",
                    f"version {version} of model {name} is loaded already",
                    remedy="give the new one a version of its own",
                )
            self._replace(name, {**versions, version: loaded})
            self._note(name, VersionStatus(version, State.AVAILABLE))
        return loaded

    def remove(self, name: str, version: int, state: State = State.END) -> None:
        """Let a version answer no new request. Those that it answers now go on: they hold it.

        Args:
            name: of the model.
            version: of the model.
            state: UNLOADING where the caller is to say itself when it has ended.

        Raises:
            InputError: it is not loaded.
        """
        with self._lock:
            versions = dict(self._loaded(name))
            if versions.pop(version, None) is None:
                raise InputError("serving.model", f"version {version} of model {name} is not loaded")
            self._note(name, VersionStatus(version, state))
            self._replace(name, versions)

    def note(self, name: str, status: VersionStatus) -> None:
        """Keep what a version that answers no requests is in the middle of, to be told by :meth:`status`."""
        with self._lock:
            self._note(name, status)

    def resolve(self, name: str, version: int | None = None, label: str | None = None) -> LoadedServable:
        """The version that answers: the one asked for by number or label, or the latest.

        Raises:
            RequestError: INVALID_ARGUMENT, no name, or an unknown label; NOT_FOUND, no such model or version.
        """
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        versions = self._models.get(name)
        if version is None:
            if versions is None:
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return versions.latest
        loaded = versions.by_number.get(version) if versions is not None else None
        if loaded is None:
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        return loaded

    def label(self, labels: Mapping[str, Mapping[str, int]], *, allow_unavailable: bool = False) -> None:
        """Give versions their labels; labels that are not among these are gone.

        Rules: ``ServerCore::UpdateModelVersionLabelMap``.

        Args:
            labels: by model, the version that each label means.
            allow_unavailable: whether a label that is new may mean a version that is not available (yet).

        Raises:
            RequestError: FAILED_PRECONDITION, a version is not available; the labels stay as they were.
        """
        with self._lock:
            for name, versions in labels.items():
                states = self._states.get(name, {})
                for label, version in versions.items():
                    before = self._labels.get(name, {}).get(label, version)
                    status = states.get(version)
                    available = status is not None and status.state is State.AVAILABLE
                    if not available and not (allow_unavailable and before == version):
                        raise RequestError(
                            Code.FAILED_PRECONDITION,
                            f"Request to assign label to version {version} of model {name}, "
                            "which is not currently available for inference",
                        )
            self._labels = {name: dict(versions) for name, versions in labels.items()}

    def status(self, name: str, version: int | None = None) -> tuple[VersionStatus, ...]:
        """The states of all versions of a model, latest first, or of the one asked for; also of those that have ended.

        Raises:
            RequestError: NOT_FOUND, no such model or version.
        """
        states = self._states.get(name, {})
        if version is not None:
            if version not in states:
                raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return (states[version],)
        if not states:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return tuple(states[number] for number in sorted(states, reverse=True))

    def models(self) -> tuple[tuple[str, int], ...]:
        """Every loaded (name, version)."""
        models = sorted(self._models.items())
        return tuple((name, version) for name, versions in models for version in versions.by_number)

    def _loaded(self, name: str) -> Mapping[int, LoadedServable]:
        versions = self._models.get(name)
        return versions.by_number if versions is not None else {}

    def _replace(self, name: str, versions: Mapping[int, LoadedServable]) -> None:
        models = {other: each for other, each in self._models.items() if other != name}
        if versions:
            models[name] = _Versions(versions[max(versions)], dict(sorted(versions.items())))
        self._models = models

    def _note(self, name: str, status: VersionStatus) -> None:
        states = {**self._states.get(name, {})}
        # Forgotten in the order in which they ended, so the newest goes to the end.
        states.pop(status.version, None)
        states[status.version] = status
        ended = [number for number, each in states.items() if each.state is State.END]
        for number in ended[:-_ENDED_KEPT]:
            del states[number]
        self._states = {**self._states, name: states}
