"""Watches the audit log: its heads from outside, and, on the owner's machine, its entries."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.chain import Chain, follow
from ensconce.audit.entry import Entry
from ensconce.audit.head import Head, parse_head
from ensconce.audit.storage import LogStorage
from ensconce.audit.witness import LogSource, watch
from ensconce.errors import EnsconceError, IntegrityError
from ensconce.files import write_aside

__all__ = ["KEY_EVENTS", "Entries", "Heads", "LogSeen"]

KEY_EVENTS: Final = ("key.released", "key.refused")
_KEPT: Final = 100


@dataclass(frozen=True)
class LogSeen:
    """What a look at the log showed.

    Attributes:
        head: the newest head that was good.
        checks: heads that were found to continue the one before them, since the start.
        bent: what once did not: it is told until the dashboard is started again.
        error: why this look has none.
    """

    head: Head | None = None
    checks: int = 0
    bent: IntegrityError | None = None
    error: EnsconceError | None = None


class Heads:
    """Takes each head of a log only with the proof that it continues the one before.

    What an earlier run found, and nobody has taken away since, still counts.

    Args:
        sources: who answers for the log: all of them are to show the same one.
        kept: the file of the head that was good last.
        key: the owner's public key.
    """

    def __init__(self, sources: Sequence[LogSource], kept: Path, key: Ed25519PublicKey) -> None:
        self._sources, self._kept, self._key = sources, kept, key
        self._seen = LogSeen(bent=_found_before(kept))

    def look(self) -> LogSeen:
        """Ask every source."""
        head, checks, bent, failure = self._seen.head, self._seen.checks, self._seen.bent, None
        for source in self._sources:
            try:
                sighting = watch(source, self._kept, self._key)
            except IntegrityError as error:
                bent = bent or error
            except EnsconceError as error:
                failure = error
            else:
                head = sighting.head
                checks += sighting.earlier is not None
        self._seen = LogSeen(head, checks, bent, failure)
        return self._seen


class Entries:
    """Reads the entries of a log as it grows, and keeps the last that are about keys.

    Args:
        storage: where the log is.
        key: the owner's public key.
        known: a head that the log once had, from an earlier run: entries begin with those that it was signed over.
        kept: where the newest head is to be written for the next run; None where it is not, or somebody else does.
    """

    def __init__(
        self, storage: LogStorage, key: Ed25519PublicKey, known: Head | None = None, kept: Path | None = None
    ) -> None:
        self._storage, self._key, self._known, self._kept = storage, key, known, kept
        self._chain = Chain()
        self._recent: deque[Entry] = deque(maxlen=_KEPT)
        self._bent: IntegrityError | None = None
        self._head: Head | None = None

    def look(self) -> LogSeen:
        """Check what was added."""
        failure: EnsconceError | None = None
        new: deque[Entry] = deque(maxlen=_KEPT)

        def take(entry: Entry) -> None:
            if entry.event in KEY_EVENTS:
                new.append(entry)

        try:
            with self._storage.view() as view:
                head = parse_head(view.head, self._key)
                if self._known is not None and self._known.size > self._chain.size:
                    self._chain = follow(view, self._chain, self._known, self._key, take)
                self._chain = follow(view, self._chain, head, self._key, take)
            if self._kept is not None and (self._head is None or head.size > self._head.size):
                write_aside(self._kept, head.to_bytes())
        except IntegrityError as error:
            self._bent = self._bent or error
        except EnsconceError as error:
            failure = error
        else:
            self._head = head
            self._recent += new
        return LogSeen(self._head, 0, self._bent, failure)

    @property
    def recent(self) -> tuple[Entry, ...]:
        """The newest first."""
        return tuple(reversed(self._recent))


def _found_before(kept: Path) -> IntegrityError | None:
    """What :func:`ensconce.audit.witness.watch` has left beside the head that is kept."""
    found = sorted(each.name for each in kept.parent.glob(f"{glob.escape(kept.name)}.*.bent"))
    if not found:
        return None
    return IntegrityError(
        "audit.bent",
        "another head of this log was found before, which is no continuation of the one that is kept",
        found=", ".join(found[:3]),
        rule=f"beside {kept} there is no such file",
        remedy="compare both heads with the owner's log; take the file away once you know why",
    )
