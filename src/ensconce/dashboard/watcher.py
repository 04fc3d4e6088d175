"""Looks at everything, round after round, in a thread of its own; the page shows the last round."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from ensconce.audit.entry import Entry
from ensconce.client.service import Service
from ensconce.dashboard.exposition import MAX_PAGE, Reading, parse_metrics
from ensconce.dashboard.history import History, Readings, Series
from ensconce.dashboard.logs import Entries, Heads, LogSeen
from ensconce.dashboard.replicas import Find, Place, Seen, look_at, no_answer
from ensconce.dashboard.traffic import LABELS, MEASURES, READ
from ensconce.errors import EnsconceError
from ensconce.times import unix_now
from ensconce.web import get

__all__ = ["EVERY_S", "Replicas", "Server", "Snapshot", "Sources", "Watcher"]

EVERY_S: Final = 5.0
"""Seconds between two rounds."""
_AT_ONCE: Final = 8
_MOST: Final = 64

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replicas:
    """Where replicas are, and who judges them."""

    find: Find
    service: Service
    metrics_path: str


@dataclass(frozen=True)
class Sources:
    """What is looked at; each part may be missing.

    Attributes:
        replicas: see there.
        servers: status addresses of provisioning servers, URLs.
        heads: of the log, from outside.
        entries: of the log, on the owner's machine.
    """

    replicas: Replicas | None = None
    servers: Sequence[str] = ()
    heads: Heads | None = None
    entries: Entries | None = None


@dataclass(frozen=True)
class Server:
    """A provisioning server: whether it is ready, and its metrics."""

    url: str
    error: EnsconceError | None
    reading: Reading | None


@dataclass(frozen=True)
class Snapshot:
    """One round.

    Attributes:
        at: when it ended, seconds since 1970; 0 before the first.
        now: the client's clock then, by which certificates are judged.
        seen: replicas.
        servers: provisioning servers.
        heads: the log from outside; None where nobody was named.
        log: the log on the owner's machine, likewise.
        events: the newest entries about keys.
        series: for plots, by the names of :data:`ensconce.dashboard.traffic.MEASURES`.
        error: why replicas could not be found, or the round failed.
    """

    at: int = 0
    seen: tuple[Seen, ...] = ()
    servers: tuple[Server, ...] = ()
    heads: LogSeen | None = None
    log: LogSeen | None = None
    events: tuple[Entry, ...] = ()
    series: Mapping[str, Series] = field(default_factory=dict, repr=False)
    error: EnsconceError | None = None


class Watcher:
    """Looks until it is stopped.

    Args:
        sources: at what.
        clock: a monotonic clock, seconds.
    """

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.monotonic) -> None:
        self.sources = sources
        self.snapshot = Snapshot()
        """The last round; exchanged as a whole."""
        self._clock = clock
        self._history = History(MEASURES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further round. One that is under way ends with the process."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as error:
                # The page shows how old it is.
                _log.error("a round failed inside", extra={"fields": {"kind": type(error).__name__}}, exc_info=error)
            self._stop.wait(EVERY_S)

    def look(self) -> None:
        """One round."""
        sources = self.sources
        places: Sequence[Place] = ()
        failure: EnsconceError | None = None
        if sources.replicas is not None:
            try:
                places = sources.replicas.find()[:_MOST]
            except EnsconceError as error:
                failure = error
        heads = _begin([sources.heads.look] if sources.heads is not None else [])
        log = _begin([sources.entries.look] if sources.entries is not None else [])
        asked = _begin([partial(_server, url) for url in sources.servers])
        looked = _begin([partial(self._look_at, place) for place in places])
        servers = [each.result() for each in asked]
        # Replicas that take their time do not keep what the log says from being seen.
        self.snapshot = snapshot = replace(
            self.snapshot,
            servers=tuple(servers),
            heads=heads[0].result() if heads else None,
            log=log[0].result() if log else None,
            events=sources.entries.recent if sources.entries is not None else (),
        )
        seen = [each.result() for each in looked]
        self._history.add(self._clock(), _readings(seen, servers))
        self.snapshot = replace(snapshot, at=unix_now(), seen=tuple(seen), series=self._history.series, error=failure)

    def _look_at(self, place: Place) -> Seen:
        replicas = self.sources.replicas
        assert replicas is not None
        return look_at(place, replicas.service, replicas.metrics_path)


def _begin(tasks: Sequence[Callable[[], Result]]) -> list[Future[Result]]:
    """Begin tasks, so many at once; what is under way at the end of the process does not hold it up."""
    futures = [Future[Result]() for _ in tasks]
    waiting = deque(zip(tasks, futures, strict=True))

    def work() -> None:
        while True:
            try:
                task, future = waiting.popleft()
            except IndexError:
                return
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)

    for number in range(min(_AT_ONCE, len(tasks))):
        threading.Thread(target=work, name=f"dashboard-{number}", daemon=True).start()
    return futures


def _readings(seen: Sequence[Seen], servers: Sequence[Server]) -> Readings:
    # By the replica's key: one that is reached at two addresses is counted once.
    found = {each.accepted.replica_id: each.reading for each in seen if each.accepted and each.reading}
    return found | {server.url: server.reading for server in servers if server.reading}


def _server(url: str) -> Server:
    error: EnsconceError | None = None
    reading: Reading | None = None
    deadline = time.monotonic() + EVERY_S
    try:
        get(f"{url.rstrip('/')}/readyz", 4096, no_answer, timeout=EVERY_S)
    except EnsconceError as failure:
        error = failure
    try:
        page = get(f"{url.rstrip('/')}/metrics", MAX_PAGE, no_answer, timeout=deadline - time.monotonic())
        reading = parse_metrics(page, READ, LABELS)
    except EnsconceError as failure:
        error = error or failure
    return Server(url, error, reading)
