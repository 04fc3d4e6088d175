"""Which versions of which models are loaded, and which of them answers a request.

Readers never wait: the table is replaced as a whole by whoever changes it. Texts are TensorFlow Serving's
(core/basic_manager.cc, model_servers/server_core.cc, model_servers/get_model_status_impl.cc).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum

from ensconce.errors import InputError
from ensconce.serving.engines import Servable
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["LoadedServable", "ModelManager", "State", "VersionStatus"]


class State(IntEnum):
    """Where a version is in its life; the numbers of ``tensorflow.serving.ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class LoadedServable:
    """A version that is ready to answer."""

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


class ModelManager:
    """The loaded versions of all models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, Servable]] = {}

    def add(self, name: str, version: int, servable: Servable) -> None:
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
        with self._lock:
            versions = dict(self._models.get(name, {}))
            if version in versions:
                raise InputError(
                    "serving.model",
                    f"version {version} of model {name} is loaded already",
                    remedy="give the new one a version of its own",
                )
            versions[version] = servable
            self._models = {**self._models, name: dict(sorted(versions.items()))}

    def resolve(self, name: str, version: int | None = None, label: str | None = None) -> LoadedServable:
        """The version that answers: the one asked for, or the latest.

        Raises:
            RequestError: INVALID_ARGUMENT, no name, or an unknown label; NOT_FOUND, no such model or version.
        """
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            raise invalid(f"Unrecognized servable version label: {label}")
        versions = self._models.get(name, {})
        if version is None:
            if not versions:
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            version = max(versions)
        if version not in versions:
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        return LoadedServable(name, version, versions[version])

    def status(self, name: str, version: int | None = None) -> tuple[VersionStatus, ...]:
        """The states of all versions of a model, latest first, or of the one asked for.

        Raises:
            RequestError: NOT_FOUND, no such model or version.
        """
        versions = self._models.get(name, {})
        if version is not None:
            if version not in versions:
                raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return (VersionStatus(version, State.AVAILABLE),)
        if not versions:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return tuple(VersionStatus(number, State.AVAILABLE) for number in reversed(versions))

    def models(self) -> tuple[tuple[str, int], ...]:
        """Every loaded (name, version)."""
        return tuple((name, version) for name, versions in sorted(self._models.items()) for version in versions)
