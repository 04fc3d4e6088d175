"""Looks at everything, round after round, in a thread of its own; the page shows the last round."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from ensconce.audit.entry import Entry
from ensconce.client.service import Service
from ensconce.dashboard.exposition import MAX_PAGE, Reading, parse_metrics
from ensconce.dashboard.history import History, Point
from ensconce.dashboard.logs import Entries, Heads, LogSeen
from ensconce.dashboard.replicas import Find, Place, Seen, look_at, no_answer
from ensconce.errors import EnsconceError
from ensconce.times import unix_now
from ensconce.web import get

__all__ = ["EVERY_S", "PLOTTED", "Replicas", "Server", "Snapshot", "Sources", "Watcher"]

EVERY_S: Final = 5.0
"""Seconds between two rounds."""
_AT_ONCE: Final = 8
_MOST: Final = 64
PLOTTED: Final = (
    ":tensorflow:serving:request_count",
    ":tensorflow:serving:request_latency_bucket",
    ":tensorflow:serving:request_latency_count",
    "ensconce_serving_queue_seconds_bucket",
    "ensconce_serving_requests",
    "ensconce_provisioning_releases_total",
    "ensconce_provisioning_refusals_total",
)
"""Metrics that are kept for plots."""

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
        points: for plots.
        error: why replicas could not be found, or the round failed.
    """

    at: int = 0
    seen: tuple[Seen, ...] = ()
    servers: tuple[Server, ...] = ()
    heads: LogSeen | None = None
    log: LogSeen | None = None
    events: tuple[Entry, ...] = ()
    points: tuple[Point, ...] = field(default=(), repr=False)
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
        self._history = History(PLOTTED)
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
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            heads = pool.submit(sources.heads.look) if sources.heads is not None else None
            log = pool.submit(sources.entries.look) if sources.entries is not None else None
            servers = list(pool.map(_server, sources.servers))
            seen = list(pool.map(self._look_at, places))
        self._history.add(self._clock(), _readings(seen, servers))
        self.snapshot = Snapshot(
            at=unix_now(),
            seen=tuple(seen),
            servers=tuple(servers),
            heads=heads.result() if heads is not None else None,
            log=log.result() if log is not None else None,
            events=sources.entries.recent if sources.entries is not None else (),
            points=self._history.points,
            error=failure,
        )

    def _look_at(self, place: Place) -> Seen:
        replicas = self.sources.replicas
        assert replicas is not None
        return look_at(place, replicas.service, replicas.metrics_path)


def _readings(seen: Sequence[Seen], servers: Sequence[Server]) -> dict[str, Reading]:
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
        reading = parse_metrics(page)
    except EnsconceError as failure:
        error = error or failure
    return Server(url, error, reading)
