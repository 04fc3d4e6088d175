"""Loads the versions that are wanted and unloads the others, without a moment at which nothing answers.

Whatever happens (versions are wanted, a load has ended, the last request has let a version go) is an event in one
queue; one thread takes events from it and alone decides. Order and states are TensorFlow Serving's:
core/aspired_versions_manager.cc, core/basic_manager.cc, core/loader_harness.cc. What differs: a retry waits without
keeping a thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from ensconce.errors import EnsconceError, InputError
from ensconce.serving.engines import Servable
from ensconce.serving.loading import Loader, LoadOptions, Threads, told, why_ended
from ensconce.serving.manager import ModelManager, State, VersionStatus
from ensconce.serving.version_policy import Action, Phase, VersionView, next_action
from ensconce.tfserving.refusal import Code

__all__ = ["Lifecycle"]

_log = logging.getLogger(__name__)

_Event = Callable[[], None]


@dataclass(eq=False)
class _Version:
    """A version that somebody wanted, from then until it is forgotten."""

    name: str
    number: int
    path: Path
    phase: Phase = Phase.NEW
    wanted: bool = True
    tries: int = 0
    retry_at: float | None = None
    error: VersionStatus | None = None
    kept: list[object] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.number}}}"


class Lifecycle:
    """The versions that are wanted, and what was made of them.

    By itself it does nothing: :meth:`start` gives it a thread, or :meth:`settle` is called.
    """

    def __init__(
        self,
        manager: ModelManager,
        loader: Loader,
        options: LoadOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._loader = loader
        self._options = options or LoadOptions()
        self._clock = clock
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._versions: dict[str, dict[int, _Version]] = {}
        self._pending: dict[str, Mapping[int, Path]] = {}
        self._loads = Threads("load", self._options.num_load_threads)
        self._unloads = Threads("unload", self._options.num_unload_threads)
        self._thread: threading.Thread | None = None
        self._taken = 0
        # What others see of it, in which wants up to `_answered` are taken over.
        self._changed = threading.Condition()
        self._standing: dict[str, list[tuple[Phase, VersionStatus | None]]] = {}
        self._asked = self._answered = 0
        self._closed = False

    def want(self, name: str, versions: Mapping[int, Path]) -> None:
        """Want these versions of a model, by number with their folders, and no others; none removes the model.

        A version that is wanted already stays as it is, also where its folder is another one now.
        """
        with self._changed:
            self._asked += 1
            self._events.put(lambda: self._take(name, versions))

    def again(self, name: str, number: int) -> None:
        """Try once more to load a version that is wanted and has failed for good."""

        def event() -> None:
            version = self._versions.get(name, {}).get(number)
            if version is not None and version.phase is Phase.FAILED and version.wanted:
                version.phase, version.tries, version.error = Phase.NEW, 0, None

        self._events.put(event)

    def drop(self, name: str, number: int) -> None:
        """Unload a version that must not serve any more, whether or not another serves in its place."""

        def event() -> None:
            version = self._versions.get(name, {}).get(number)
            if version is not None:
                version.wanted = False
                if version.phase is Phase.READY:
                    self._unload(version)

        self._events.put(event)

    def load_threads(self, number: int | None = None) -> None:
        """From now on load with so many threads, or with as many as the options say."""
        wanted = self._options.num_load_threads if number is None else number
        self._events.put(lambda: self._loads.resize(wanted))

    def failures(self, names: Collection[str]) -> list[tuple[str, VersionStatus]] | None:
        """Those of these models that cannot be served, each with its highest version; None while that is not known.

        A model can be served once any wanted version of it serves, and cannot once every wanted version has failed. Of
        one without a wanted version it is not known.
        """
        with self._changed:
            if self._answered < self._asked:
                return None
            failures = []
            for name in sorted(names):
                versions = self._standing.get(name, [])
                if any(phase is Phase.READY for phase, _ in versions):
                    continue
                errors = [error for phase, error in versions if phase is Phase.FAILED and error is not None]
                if not versions or len(errors) < len(versions):
                    return None
                failures.append((name, max(errors, key=lambda error: error.version)))
            return failures

    def wait(self, names: Collection[str], needed: Callable[[], bool]) -> list[tuple[str, VersionStatus]] | None:
        """Wait until :meth:`failures` knows, and return it; None when nobody needs to know any more, or at the end.

        Args:
            names: of models.
            needed: asked whenever something has changed; :meth:`look` makes it be asked.
        """
        with self._changed:
            while not self._closed and needed():
                failures = self.failures(names)
                if failures is not None:
                    return failures
                self._changed.wait()
        return None

    def look(self) -> None:
        """Let those who wait look whether they still need to."""
        with self._changed:
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to work in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Do all that can be done now, in this thread: for tests, and where there is no other thread."""
        busy = True
        while busy and not self._closed:
            # All that has happened counts before anything is decided, and is told before the next thing is.
            busy = self._drain()
            busy = self._flush() or self._handle_pending() or self._retry() or self._act() or busy
            self._tell()

    def close(self) -> None:
        """End: loads that run are waited for, nothing else is begun. What is loaded stays where requests need it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._events.put(lambda: None)
        if self._thread is not None:
            self._thread.join()
        self._loads.close()
        self._unloads.close()

    def _run(self) -> None:
        while not self._closed:
            due = min((each.retry_at for each in self._all() if each.retry_at is not None), default=None)
            timeout = None if due is None else max(due - self._clock(), 0.0)
            try:
                with contextlib.suppress(Empty):
                    self._events.get(timeout=timeout)()
                self.settle()
            except Exception as error:
                # A mistake of ours about one version must not end what is done for all others.
                _log.exception("internal error: %s", type(error).__name__)

    def _drain(self) -> bool:
        busy = False
        with contextlib.suppress(Empty):
            while True:
                self._events.get_nowait()()
                busy = True
        return busy

    def _tell(self) -> None:
        """Let others see what has become of what they wanted."""
        standing = {
            name: [(each.phase, each.error) for each in versions.values() if each.wanted]
            for name, versions in self._versions.items()
            if name not in self._pending
        }
        with self._changed:
            if (self._standing, self._answered) != (standing, self._taken):
                self._standing, self._answered = standing, self._taken
                self._changed.notify_all()

    def _all(self) -> list[_Version]:
        return [each for versions in self._versions.values() for each in versions.values()]

    def _take(self, name: str, versions: Mapping[int, Path]) -> None:
        self._pending[name] = versions
        self._taken += 1

    def _flush(self) -> bool:
        """Forget versions that have come to their end and are not wanted."""
        gone = [
            each for each in self._all() if not each.wanted and each.phase in (Phase.NEW, Phase.ENDED, Phase.FAILED)
        ]
        for each in gone:
            if each.phase is Phase.NEW:
                self._manager.note(each.name, VersionStatus(each.number, State.END))
            del self._versions[each.name][each.number]
            if not self._versions[each.name]:
                del self._versions[each.name]
        return bool(gone)

    def _handle_pending(self) -> bool:
        """Take over what is wanted; if that is a version which is just going, once it has gone.

        A version that only serves until another does stays, when it is wanted again. (In the original it would still
        have to go first, and waits for the other for ever when that does not load.)
        """
        handled = False
        for name, wanted in list(self._pending.items()):
            present = self._versions.get(name, {})
            back = [each for number, each in present.items() if not each.wanted and number in wanted]
            if any(each.phase is not Phase.READY for each in back):
                continue
            handled = True
            del self._pending[name]
            for number, each in present.items():
                each.wanted = number in wanted
                if not each.wanted and each.retry_at is not None:
                    self._fail(each, each.error or VersionStatus(number, State.END))
            for number, path in wanted.items():
                if number not in present:
                    self._versions.setdefault(name, {})[number] = _Version(name, number, path)
                    self._manager.note(name, VersionStatus(number, State.START))
        return handled

    def _retry(self) -> bool:
        """Try the load again that is due, if one is."""
        now = self._clock()
        for each in self._all():
            if each.retry_at is not None and each.retry_at <= now:
                each.retry_at = None
                self._load(each)
                return True
        return False

    def _act(self) -> bool:
        """Do the next thing; unloading comes before loading, whatever the model."""
        actions = []
        for name, versions in sorted(self._versions.items()):
            views = [VersionView(each.number, each.phase, each.wanted) for each in versions.values()]
            action = next_action(views)
            if action is not None:
                actions.append((action[0] is Action.LOAD, name, action[1]))
        if not actions:
            return False
        load, name, number = min(actions)
        version = self._versions[name][number]
        if load:
            version.phase = Phase.LOADING
            self._load(version)
        else:
            self._unload(version)
        return True

    def _load(self, version: _Version) -> None:
        def job() -> None:
            self._manager.note(version.name, VersionStatus(version.number, State.LOADING))
            _log.info("loading servable version %s", version)
            start = self._clock()
            made: list[Servable] = []
            error: VersionStatus | None = None
            try:
                made.append(self._loader(version.name, version.number, version.path))
            except Exception as caught:
                error = why_ended(version.number, caught)
            seconds = self._clock() - start
            self._events.put(lambda: self._loaded(version, made, error, seconds))

        self._loads.run(job)

    def _loaded(self, version: _Version, made: list[Servable], error: VersionStatus | None, seconds: float) -> None:
        version.tries += 1
        if error is None and not version.wanted:
            made.clear()
            error = VersionStatus(version.number, State.END, Code.CANCELLED, "Loading of servable cancelled")
            self._fail(version, error)
        elif error is None:
            try:
                loaded = self._manager.add(version.name, version.number, made[0])
            except EnsconceError as refused:
                self._fail(version, why_ended(version.number, refused))
                return
            version.kept = [made.pop(), weakref.ref(loaded, self._let_go(version))]
            version.phase = Phase.READY
            _log.info("Successfully loaded servable version %s in %.3f s", version, seconds)
        elif version.wanted and version.tries <= self._options.max_num_load_retries:
            _log.error("loading %s failed, it is tried again: %s", version, told(error))
            version.error = error
            version.retry_at = self._clock() + max(self._options.load_retry_interval_micros, 0) / 1e6
        else:
            self._fail(version, error)

    def _fail(self, version: _Version, error: VersionStatus) -> None:
        _log.error("servable version %s cannot be loaded: %s", version, told(error))
        version.phase, version.retry_at, version.error = Phase.FAILED, None, error
        self._manager.note(version.name, error)

    def _let_go(self, version: _Version) -> Callable[[object], None]:
        """What is called when nobody holds the loaded version any more: in any thread, in the middle of anything."""
        events = self._events

        def gone(_reference: object) -> None:
            events.put(lambda: self._quiesced(version))

        return gone

    def _unload(self, version: _Version) -> None:
        version.phase = Phase.UNLOADING
        _log.info("unloading servable version %s", version)
        # Where somebody else has taken it out, those who hold it still let it go.
        with contextlib.suppress(InputError):
            self._manager.remove(version.name, version.number, State.UNLOADING)

    def _quiesced(self, version: _Version) -> None:
        """No request is answered by the version any more: free it."""

        def job() -> None:
            version.kept.clear()
            self._events.put(lambda: self._ended(version))

        self._unloads.run(job)

    def _ended(self, version: _Version) -> None:
        version.phase = Phase.ENDED
        self._manager.note(version.name, VersionStatus(version.number, State.END))
        _log.info("Done unloading servable version %s", version)
