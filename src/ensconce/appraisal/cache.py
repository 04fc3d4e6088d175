"""Collateral in a store, so that verification goes on while its origin is away, and never goes back.

One document for each kind of platform. What is fetched is vetted up to an accepted root, compared with what was seen,
and mined for revocations before it takes the place of anything. It is fetched again once a day and in the last fifth of
its life, in a thread of its own, while what there is serves; when that fails, it serves until it expires. What a quote
did not verify against is fetched again within a minute.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from ensconce import strict_json
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.newest import Newest
from ensconce.appraisal.origin import Origin
from ensconce.appraisal.pck import read_pck
from ensconce.appraisal.revocations import Revocations
from ensconce.appraisal.vetting import Link, Vetted, links_of, vet
from ensconce.errors import EnsconceError, EvidenceError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.state.store import Store

__all__ = ["CollateralCache"]

_RETRY_S = 60
_MAX_ENTRIES = 1024
_MAX_FETCHES = 16
_MEMBERS = {"version", "fetched", "collateral"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Vetted collateral, and when it was fetched, in seconds since 1970."""

    vetted: Vetted
    fetched: int

    def due(self, now: int, refresh_s: int) -> bool:
        begin, end = self.vetted.begin, self.vetted.end
        ageing = end - (end - begin) // 5
        return not max(self.fetched, begin) <= now < min(self.fetched + refresh_s, ageing)


class CollateralCache:
    """Collateral for SGX and TDX platforms, from an origin by way of a store. Safe to share between threads.

    Args:
        store: where documents are kept: collateral, what was seen of it, and revocations.
        origin: where collateral comes from.
        now: the clock, seconds since 1970.
        roots: names of the roots that are accepted.

    Attributes:
        revocations: what was ever revoked; :attr:`Revocations.left_out` is worth an alarm.
        refused: answers that were not taken since the start, because they were not genuine, not for what was asked, or
            older than what was seen.
    """

    def __init__(self, store: Store, origin: Origin, now: Callable[[], int], *, roots: Collection[str]) -> None:
        self.revocations = Revocations(store)
        self.refused = 0
        self._newest = Newest(store)
        self._store = store
        self._origin = origin
        self._now = now
        self._roots = tuple(roots)
        self._lock = threading.Lock()
        self._entries: dict[PlatformKind, _Entry] = {}
        # What did not hold, by the time at which it was fetched.
        self._doubted: dict[PlatformKind, int] = {}
        self._tried: dict[PlatformKind, tuple[int, EnsconceError | None]] = {}
        self._fetches: dict[PlatformKind, Future[None]] = {}

    def get_for(self, quote: bytes) -> Collateral:
        """Collateral for the platform that a quote says it is from, which nobody has verified yet.

        Raises:
            EvidenceError: the quote is malformed, or does not say; or a certificate in it, or one that the collateral
                hangs from, was revoked once (``pck_chain.revoked``, ``collateral.*.chain.revoked``).
            UnreachableError: as :meth:`get`.
        """
        parsed = parse_quote(quote)
        platform = PlatformKind.of(parsed)
        vetted = self._get(platform)
        self.revocations.refuse(_links(read_pck(parsed).chain))
        try:
            self.revocations.refuse(vetted.links)
        except EvidenceError:
            self._doubt(platform)
            raise
        return vetted.collateral

    def get(self, platform: PlatformKind) -> Collateral:
        """Collateral for one kind of platform. Waits for the origin only when there is none that is still good.

        Raises:
            UnreachableError: there is none, or only an expired one (``collateral.expired``), and the origin gives none.
            EvidenceError: what the origin gives cannot be used, and there is nothing else.
            InputError: the origin is wrong; or the store is.
        """
        return self._get(platform).collateral

    def doubt(self, quote: bytes) -> None:
        """The collateral for this quote's platform did not hold: ask the origin before it is used again, if it answers.

        Args:
            quote: as it was given to :meth:`get_for`.
        """
        self._doubt(PlatformKind.of(parse_quote(quote)))

    def refresh(self) -> None:
        """Begin to fetch whatever is due, and return at once. For a server to call now and then.

        Without it, what nobody asks for ages, and an outage may then find it expired.
        """
        for platform, entry in list(self._entries.items()):
            if self._due(platform, entry):
                self._begin(platform)

    def _get(self, platform: PlatformKind) -> Vetted:
        entry = self._entries.get(platform) or self._load(platform)
        if entry is not None and not self._due(platform, entry):
            return entry.vetted
        fetch = self._begin(platform)
        good = entry is not None and self._now() < entry.vetted.end and self._doubted.get(platform) != entry.fetched
        if not good:
            if fetch is not None:
                fetch.result()
            entry = self._entries.get(platform)
        if entry is None or self._now() >= entry.vetted.end:
            raise self._nothing(platform, entry)
        return entry.vetted

    def _nothing(self, platform: PlatformKind, entry: _Entry | None) -> EnsconceError:
        _, error = self._tried.get(platform, (0, None))
        remedy = f"check {self._origin.name}, the way to it, and this machine's clock"
        if entry is not None:
            return UnreachableError(
                "collateral.expired",
                f"the collateral for {platform} has expired, and there is no newer one",
                found=f"expired at {entry.vetted.end}" + (f"; {error.problem}" if error else ""),
                rule=f"now {self._now()}; from {self._origin.name}",
                remedy=remedy,
            )
        if error is not None:
            # A new one each time: the traceback of an exception grows with each raise.
            return error.altered()
        problem = "there is no collateral, and too much is being fetched to ask for it now"
        return UnreachableError("collateral.missing", problem, found=str(platform), remedy=remedy)

    def _due(self, platform: PlatformKind, entry: _Entry) -> bool:
        return entry.due(self._now(), self._origin.refresh_s) or self._doubted.get(platform) == entry.fetched

    def _doubt(self, platform: PlatformKind) -> None:
        if (entry := self._entries.get(platform)) is not None:
            self._make_room(self._doubted)
            self._doubted[platform] = entry.fetched

    def _begin(self, platform: PlatformKind) -> Future[None] | None:
        """The fetch that is under way, or a new one; None when the last was less than a minute ago, or too many run."""
        now = self._now()
        with self._lock:
            if (running := self._fetches.get(platform)) is not None:
                return running
            tried, _ = self._tried.get(platform, (None, None))
            if (tried is not None and tried <= now < tried + _RETRY_S) or len(self._fetches) >= _MAX_FETCHES:
                return None
            fetch = self._fetches[platform] = Future()
        threading.Thread(target=self._run, args=(platform, fetch), name=f"collateral {platform}", daemon=True).start()
        return fetch

    def _run(self, platform: PlatformKind, fetch: Future[None]) -> None:
        now, error = self._now(), None
        try:
            # Another process, or another server, may have been faster.
            entry = self._load(platform)
            if entry is None or self._due(platform, entry):
                self._fetch(platform)
        except EnsconceError as failure:
            error = failure
            _log.warning("no new collateral for %s from %s: %s", platform, self._origin.name, failure)
        except Exception as failure:
            _log.exception("fetching collateral for %s failed", platform)
            error = EnsconceError(
                "collateral.fetch",
                "fetching collateral failed",
                found=repr(failure)[:200],
                remedy="this is a fault of Ensconce: report it with the traceback in the log",
            )
        with self._lock:
            self._make_room(self._tried)
            self._tried[platform] = (now, error)
            del self._fetches[platform]
        fetch.set_result(None)

    def _fetch(self, platform: PlatformKind) -> None:
        collateral = self._origin.fetch(platform)
        try:
            vetted = vet(collateral, self._roots, platform)
            if self._now() >= vetted.end:
                raise UnreachableError(
                    "collateral.expired",
                    f"{self._origin.name} gave collateral that has expired",
                    found=f"expired at {vetted.end}",
                    rule=f"now {self._now()}",
                    remedy="let the PCCS refresh what it has or make a new bundle, and check this machine's clock",
                )
            # Even a list that comes with what is refused next was signed, and what it revokes is revoked.
            self.revocations.learn(vetted.lists)
            self._newest.admit(vetted)
        except EvidenceError:
            with self._lock:
                self.refused += 1
            raise
        entry = _Entry(vetted, self._now())
        self._keep(platform, entry)
        content = {"version": 1, "fetched": entry.fetched, "collateral": collateral.to_object()}
        try:
            with self._store.locked(_document(platform)) as slot:
                slot.write(json.dumps(content).encode())
        except EnsconceError as error:
            # A full disk is no reason to stop verifying: what is in memory is as good.
            _log.warning("collateral for %s is not kept: %s", platform, error)

    def _load(self, platform: PlatformKind) -> _Entry | None:
        """The newer of what is in memory and in the store; what cannot be used there is as good as nothing."""
        entry = self._entries.get(platform)
        try:
            data = self._store.read(_document(platform))
            if data is None:
                return entry
            content: Any = strict_json.loads(data)
            if not isinstance(content, dict) or set(content) != _MEMBERS or content["version"] != 1:
                raise ValueError("its members are others, or its version is")
            if type(content["fetched"]) is not int:
                raise ValueError("it does not say when it was fetched")
            vetted = vet(Collateral.from_object(content["collateral"]), self._roots, platform)
            # Whoever can write the store may have put an older one back, and say that it was fetched just now.
            self._newest.check_kept(vetted)
            stored = _Entry(vetted, content["fetched"])
        except (EnsconceError, ValueError) as error:
            _log.warning("the collateral for %s in the store cannot be used: %s", platform, error)
            return entry
        if entry is None or stored.fetched > entry.fetched:
            self.revocations.learn(vetted.lists)
            self._keep(platform, stored)
        return self._entries.get(platform)

    def _keep(self, platform: PlatformKind, entry: _Entry) -> None:
        if platform not in self._entries:
            self._make_room(self._entries)
        self._entries[platform] = entry

    @staticmethod
    def _make_room(table: dict[PlatformKind, Any]) -> None:
        # Whoever sends quotes chooses the kinds; what was there longest goes first.
        while len(table) >= _MAX_ENTRIES:
            table.pop(next(iter(table)), None)


# A machine's quotes all carry the same chain, as :func:`read_pck` knows.
@functools.lru_cache(maxsize=128)
def _links(chain: tuple[x509.Certificate, ...]) -> tuple[Link, ...]:
    return links_of(chain, "pck_chain")


def _document(platform: PlatformKind) -> str:
    return f"collateral/{str(platform).lower()}"
