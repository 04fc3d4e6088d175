"""The replicas behind the proxy: a pool of connections that is opened as soon as one replica is accepted."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from ensconce.client.attested import Alpn
from ensconce.client.leaf import Accepted
from ensconce.client.pool import Pool
from ensconce.client.seats import Lease, Seat
from ensconce.client.service import Service
from ensconce.client.tunnel import Tunnel, as_failure
from ensconce.errors import EnsconceError, UnreachableError

__all__ = ["Upstream"]

LinkT = TypeVar("LinkT")

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


class Upstream(Generic[LinkT]):
    """A pool that may not be there yet. Safe to share between threads.

    Args:
        service: what is connected to, and judges.
        alpn: the protocol to be spoken.
        make: makes what speaks through a tunnel, in the event loop that uses it.
        dispose: ends it, in any thread.
        chance: a number from 0 to 1, for pauses.
    """

    def __init__(
        self,
        service: Service,
        alpn: Alpn,
        make: Callable[[Tunnel], LinkT],
        dispose: Callable[[LinkT], object],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.service = service
        self._alpn, self._make, self._dispose, self._chance = alpn, make, dispose, chance
        self._pool: Pool[LinkT] | None = None
        self._failure: EnsconceError | None = None
        self._watchers: list[Callable[[], object]] = []
        self._told: tuple[object, ...] = ()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._open, name="upstream", daemon=True)

    def start(self) -> None:
        """Begin to look for replicas, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """End every connection, with the calls on them."""
        self._closed.set()
        # A handshake under way ends by its own timeout; nothing is lost with its thread.
        with self._lock:
            pool = self._pool
        if pool is not None:
            pool.close()

    def lease(self, avoid: Collection[str] = ()) -> Lease[LinkT]:
        """A way to a replica for one call, see :meth:`ensconce.client.pool.Pool.lease`.

        Raises:
            EnsconceError: no replica has been accepted yet, and why.
        """
        pool = self._pool
        if pool is None:
            raise self.reason()
        return pool.lease(avoid)

    @property
    def replicas(self) -> dict[str, Accepted]:
        """The replicas that calls may go to now, by id."""
        pool = self._pool
        return pool.replicas if pool is not None else {}

    @property
    def seats(self) -> list[Seat[LinkT]]:
        """What leads to them."""
        pool = self._pool
        return pool.seats if pool is not None else []

    def reason(self, latest: EnsconceError | None = None) -> EnsconceError:
        """Why no replica can be had: a refusal if there was one, otherwise why none is reached.

        An error of its own for each call: one that is raised again keeps the frames, and so the requests, of before.

        Args:
            latest: what one connection failed of.
        """
        pool = self._pool
        known = [latest, self._failure, *(pool.failures.values() if pool is not None else ())]
        failures = [each for each in known if each is not None]
        refusals = [each for each in failures if not isinstance(each, UnreachableError)]
        none = UnreachableError(
            "proxy.no_replica", "no replica has been accepted yet", remedy="wait, or ask /readyz of --status"
        )
        return next(iter([*refusals, *failures]), none).altered()

    def failures(self) -> dict[str, EnsconceError]:
        """Where the latest attempt to connect failed, and why; under "" before anything was accepted."""
        pool = self._pool
        if pool is not None:
            return {str(address): error for address, error in pool.failures.items()}
        return {"": self._failure} if self._failure is not None else {}

    def watch(self, changed: Callable[[], object]) -> None:
        """Have something called, in any thread, whenever :attr:`replicas` may have changed; before :meth:`start`."""
        self._watchers.append(changed)

    def _open(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closed.is_set():
            pool = Pool(self.service, self._alpn, self._make, self._dispose)
            pool.watch(self._changed)
            try:
                pool.open()
            except Exception as error:
                self._failure = as_failure(error)
                self._changed()
                self._closed.wait(pause * (0.5 + self._chance() / 2))
                pause = min(_LONGEST_PAUSE_S, 2 * pause)
                continue
            with self._lock:
                self._pool, self._failure = pool, None
            if self._closed.is_set():
                pool.close()
            self._changed()
            return

    def _changed(self) -> None:
        """Tell those who watch, and the log what is new."""
        replicas, failures = sorted(self.replicas), self.failures()
        told = (*replicas, *((where, error.check) for where, error in failures.items()))
        with self._lock:
            is_new, self._told = told != self._told, told
        if is_new:
            _log.info("accepted replicas: %s", ", ".join(replicas) or "none")
            for where, error in failures.items():
                _log.warning("no connection%s: %s", f" to {where}" if where else "", error)
        for each in self._watchers:
            each()
