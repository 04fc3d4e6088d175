"""Which versions a replica serves: what the measured policy chooses of what the host has laid into ``models/``.

The host is believed that much: that a folder is there. What is in it proves itself (``models.load``), and the owner
says whether its key may be had. A version that serves needs its folder no more; it goes when the policy prefers others
that serve, or when the owner refuses its key (docs/decisions/0030).
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ensconce.enclave.config import MAX_LOADED, EngineConfig, ModelConfig
from ensconce.enclave.present import choose, folders
from ensconce.errors import EnsconceError, InputError, restore
from ensconce.models.layout import scan
from ensconce.models.load import open_sealed
from ensconce.serving.engines import Servable
from ensconce.serving.engines.openvino import OpenVinoServable
from ensconce.serving.lifecycle import Lifecycle
from ensconce.serving.loading import Loader, LoadOptions
from ensconce.serving.manager import LoadedServable, ModelManager, State
from ensconce.serving.replay import replay
from ensconce.serving.warmup import WARMUP_FILE, replay_records

__all__ = ["Versions"]

_FIRST_RETRY_S: Final = 5.0
_LONGEST_RETRY_S: Final = 600.0
_FOR_EVER: Final = frozenset({"key.retired"})
"""Refusals that are never taken back."""

_Version = tuple[str, int]
AskKey = Callable[[str, int], bytes]
"""Asks the owner for a version's key; raises EnsconceError."""
Tell = Callable[..., None]


@dataclass(frozen=True)
class _Failure:
    """A version that could not be loaded: why, what its folder looked like then, and when to try again (or never)."""

    error: EnsconceError
    look: object
    tries: int
    again_at: float | None


class Versions:
    """Loads and unloads, in a thread of its own once :meth:`follow` was called."""

    def __init__(
        self,
        folder: Path,
        models: Iterable[ModelConfig],
        engine: EngineConfig,
        manager: ModelManager,
        ask: AskKey,
        tell: Tell,
        *,
        around: Callable[[Loader], Loader] = lambda loader: loader,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            folder: ``models/``, as an absolute path: while a model is read, the process's working directory is another.
            models: what may be served, by measured configuration.
            engine: how.
            manager: where versions are put.
            ask: for keys.
            tell: the log: an event's name, and its fields.
            around: counts loads, or not.
            clock: seconds.
        """
        self._folder = folder
        self._models = {model.name: model for model in models}
        self._engine = engine
        self._manager = manager
        self._ask = ask
        self._tell = tell
        self._clock = clock
        # A version that failed is tried again when this class says so.
        self._lifecycle = Lifecycle(manager, around(self._load), LoadOptions(max_num_load_retries=0), clock=clock)
        self._lock = threading.RLock()
        self._keys: dict[_Version, bytes] = {}
        self._failures: dict[_Version, _Failure] = {}
        self._looks: dict[_Version, object] = {}
        self._settled: set[_Version] = set()
        self._complaints: dict[str, str] = {}
        self._missing: set[_Version] = set()
        self._wanted: dict[str, tuple[int, ...]] = {}

    def start(self, keys: Mapping[_Version, bytes], refused: Mapping[_Version, EnsconceError]) -> None:
        """Load what is there, in this thread.

        Args:
            keys: that were granted already.
            refused: versions whose keys were not.

        Raises:
            EnsconceError: nothing can be served, and why the newest version cannot.
        """
        self._keys = dict(keys)
        for version, error in refused.items():
            self._failed(version, error, look=None, tries=1)
        for name in self._models:
            self._settled |= {(name, number) for number in folders(self._folder / name)}
        while self._want():
            self._lifecycle.settle()
        self._keys.clear()
        if not self._manager.models():
            with self._lock:
                newest = max(self._failures, key=lambda version: (version[1], version[0]), default=None)
                if newest is not None:
                    raise _copied(self._failures[newest].error)
            raise InputError("replica.models", "there is nothing to serve any more", remedy="start the replica again")

    def follow(self) -> None:
        """Load and unload in another thread from now on."""
        self._lifecycle.start()

    def close(self) -> None:
        """Begin no other load."""
        self._lifecycle.close()

    def look(self) -> None:
        """Look into ``models/`` once, and want what is wanted of what is there, and of what serves."""
        with self._lock:
            for name in self._models:
                try:
                    present = folders(self._folder / name)
                except InputError as error:
                    self._complain(name, error)
                    continue
                self._complaints.pop(name, None)
                self._settle(name, present)
            self._want()

    def withdraw(self, name: str, number: int, reason: EnsconceError) -> None:
        """Serve a version no more, because the owner does not grant it any more."""
        with self._lock:
            self._failed((name, number), reason, look=None, tries=1)
            # It may be wanted again, when the owner grants it again: then that is something new.
            self._wanted[name] = tuple(each for each in self._wanted.get(name, ()) if each != number)
            # Unless it has just gone by itself.
            with contextlib.suppress(InputError):
                self._manager.remove(name, number, State.UNLOADING)
            self._lifecycle.drop(name, number)

    def serve(self, models: Iterable[ModelConfig]) -> None:
        """Serve these models, by these policies, instead of those that were measured."""
        with self._lock:
            chosen = {model.name: model for model in models}
            for name in self._models.keys() - chosen.keys():
                self._wanted[name] = ()
                self._lifecycle.want(name, {})
            self._models = chosen
            self._want()

    def _complain(self, what: str, error: EnsconceError) -> None:
        """Tell once what would be found again at every look."""
        if self._complaints.get(what) != str(error):
            self._complaints[what] = str(error)
            self._tell("failed", model=what, **error.fields())

    def _settle(self, name: str, present: Mapping[int, Path]) -> None:
        """Note which folders look as they did the last time, and which failed version's does not look as it did."""
        loaded = {version for version in self._manager.models() if version[0] == name}
        for number, folder in present.items():
            version = (name, number)
            if version in loaded:
                continue
            look = _look(folder)
            if self._looks.get(version) != look:
                self._looks[version] = look
                continue
            self._settled.add(version)
            failure = self._failures.get(version)
            if failure is None or failure.again_at is None:
                continue
            changed = failure.look is not None and failure.look != look
            if changed or failure.again_at <= self._clock():
                # Its load begins anew, and says by itself how that ends.
                self._failures[version] = _Failure(failure.error, look, failure.tries, 0.0)
                self._lifecycle.again(name, number)
        gone = {(name, number) for each, number in self._settled | loaded if each == name and number not in present}
        for version in gone:
            self._looks.pop(version, None)
            self._settled.discard(version)
            if version not in loaded:
                self._failures.pop(version, None)
        self._missing = {version for version in self._missing if version[0] != name or version in gone}
        for _, number in sorted((gone & loaded) - self._missing):
            self._tell("missing", model=name, version=number, served=True)
        self._missing |= gone & loaded

    def _want(self) -> bool:
        """Want what the policies choose; whether that has changed."""
        with self._lock:
            loaded = set(self._manager.models())
            wanted: dict[str, list[int]] = {}
            for name, model in self._models.items():
                there = {number for each, number in self._settled | loaded if each == name}
                failed = {number for each, number in self._failures if each == name and (each, number) not in loaded}
                wanted[name] = list(choose(model, there, failed))
            self._bound(wanted, loaded)
            changed = {name: tuple(numbers) for name, numbers in wanted.items()}
            changed = {name: numbers for name, numbers in changed.items() if self._wanted.get(name, ()) != numbers}
            for name, numbers in changed.items():
                self._wanted[name] = numbers
                self._lifecycle.want(name, {number: self._folder / name / str(number) for number in numbers})
            return bool(changed)

    def _bound(self, wanted: dict[str, list[int]], loaded: Collection[_Version]) -> None:
        """Leave out what is too much: what serves stays, then what has not failed comes first, and the newest of it."""
        every = [(name, number) for name, numbers in wanted.items() for number in numbers]
        if len(every) <= MAX_LOADED:
            self._complaints.pop("models", None)
            return
        every.sort(key=lambda version: (version not in loaded, version in self._failures, -version[1], version[0]))
        for name, number in every[MAX_LOADED:]:
            wanted[name].remove(number)
        self._complain(
            "models",
            InputError(
                "replica.models",
                "there are too many versions to serve",
                found=f"{len(every)} versions",
                rule=f"at most {MAX_LOADED}; newer ones come first",
                remedy="remove versions that are not served",
            ),
        )

    def _load(self, name: str, number: int, folder: Path) -> Servable:
        """Open, load and warm up a version."""
        version = (name, number)
        with self._lock:
            failure = self._failures.get(version)
            if failure is not None and (failure.again_at is None or failure.again_at > self._clock()):
                raise _copied(failure.error)
            key = self._keys.pop(version, None)
        look, start = _look(folder), time.monotonic()
        try:
            servable, count = self._opened(name, number, key)
        except Exception as caught:
            known = caught if isinstance(caught, EnsconceError) else _unforeseen(caught)
            with self._lock:
                before = self._failures.get(version)
                self._failed(version, known, look, 1 + (before.tries if before is not None else 0))
            self._tell("failed", model=name, version=number, **known.fields())
            raise
        with self._lock:
            self._failures.pop(version, None)
        self._tell("loaded", model=name, version=number, files=count, seconds=round(time.monotonic() - start, 3))
        return servable

    def _failed(self, version: _Version, error: EnsconceError, look: object, tries: int) -> None:
        wait = min(_FIRST_RETRY_S * 2 ** (tries - 1), _LONGEST_RETRY_S)
        again_at = None if error.check in _FOR_EVER else self._clock() + wait
        self._failures[version] = _Failure(_copied(error), look, tries, again_at)

    def _opened(self, name: str, number: int, key: bytes | None) -> tuple[Servable, int]:
        """The servable, and how many files it was made of. Nothing here refers to the key afterwards."""
        files = open_sealed(self._folder, name, number, self._ask(name, number) if key is None else key)
        del key
        kept: tuple[str, ...] = ()
        try:
            servable = OpenVinoServable(
                files, threads=self._engine.threads or None, precision=self._models[name].precision
            )
            records = files.get(str(WARMUP_FILE))
            if records is not None:
                loaded = LoadedServable(name, number, servable)
                replay_records(io.BytesIO(records), str(WARMUP_FILE), lambda log: replay(loaded, log))
            # The engine uses the weights in place; of everything else it has made its own form.
            kept = (".bin",)
        finally:
            for path, content in files.items():
                if not path.endswith(kept):
                    content[:] = bytes(len(content))
        return servable, len(files)


def _look(folder: Path) -> object:
    """What a folder looks like from outside: compared with what it looked like before, and believed in nothing."""
    try:
        return scan(folder, InputError)
    except EnsconceError as error:
        return str(error)


def _copied(error: EnsconceError) -> EnsconceError:
    """The same error without its traceback, whose frames hold the key and what was decrypted with it."""
    return restore(error.fields(), error.exit_status)


def _unforeseen(error: Exception) -> EnsconceError:
    # The message may quote the model, so only its kind is told.
    return EnsconceError("replica.bug", "a load failed in a way nobody foresaw", found=type(error).__name__)
