"""What publishers have published, as a client gets it: from a URL or a file, checked anew for every connection."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_owners import key_name, public_key
from ensconce.appraisal.published import Measurements, check_end
from ensconce.audit.public import load_public_key
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.files import read_bounded
from ensconce.folders import make_below, state_folder
from ensconce.publication.file import MAX_FILE, parse_published
from ensconce.publication.remembered import admit
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store
from ensconce.times import unix_now, unix_of
from ensconce.web import get

__all__ = ["REFRESH_S", "PublishedList"]

REFRESH_S = 3600
"""How long a client goes on with a list before it asks for a newer one, in seconds."""

_MAX_PUBLISHERS = 16


class PublishedList:
    """The list at one place, under the keys of those who may have signed it. Safe to share between threads.

    Args:
        source: http or https URL, or the path of a file.
        publishers: whom to believe: files with a key (``owner.pub``), or keys by name, ``ed25519:<64 digits>``.
        roots: for :meth:`to_policy`: names of the roots that evidence may hang from.
        ca_file: PEM file of the authorities of an https URL, instead of the system's.
        store: what remembers the newest list; this user's state folder when absent.
        now: the clock, seconds since 1970.

    Raises:
        InputError: no publisher, or one that is none; ``published.ca_file``; ``folder.state``.
    """

    def __init__(
        self,
        source: str | Path,
        publishers: Sequence[str | Path],
        *,
        roots: tuple[str, ...] = ("intel",),
        ca_file: Path | None = None,
        store: Store | None = None,
        now: Callable[[], int] = unix_now,
    ) -> None:
        if not 1 <= len(publishers) <= _MAX_PUBLISHERS:
            raise InputError(
                "published.publisher",
                "nobody is named whose list is to be believed" if not publishers else "so many publishers",
                rule=f"1 to {_MAX_PUBLISHERS} publishers' keys",
                remedy="name the publisher's key, owner.pub (--publisher)",
            )
        self._keys = [_key(each) for each in publishers]
        self._source = str(source)
        self._roots = roots
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if self._source.startswith("https:") else None
        except OSError as error:
            raise InputError(
                "published.ca_file", f"cannot use {ca_file}: {error.strerror or error}", remedy="name a PEM file"
            ) from error
        self._store = FolderStore(make_below(state_folder(), "state")) if store is None else store
        self._now = now
        self._lock = threading.Lock()
        self._data = b""
        self._due = 0

    def measurements(self, service: str) -> Measurements:
        """What is published for a service, if all of it holds and nothing newer was ever seen.

        A URL is asked again when an hour has passed; while it does not answer, the list at hand is good until its end.

        Args:
            service: TLS name.

        Raises:
            EvidenceError: as :func:`~ensconce.publication.file.parse_published`; ``published.rollback``,
                ``published.fork``; ``published.service``: the list is about another service.
            RefusedError: ``published.expired``.
            IntegrityError: ``audit.*``: the publisher's log was bent; ``published.remembered``.
            UnreachableError: ``published.source``: the URL gave no list yet.
            InputError: ``file.*``, ``state.*``.
        """
        with self._lock:
            # What does not hold is not kept, and is asked for again at once.
            data, self._due = self._get(), 0
            file = parse_published(data, self._keys)
            found = file.measurements
            if found.service != service:
                raise EvidenceError(
                    "published.service",
                    "this list is about another service",
                    found=found.service,
                    rule=service,
                    remedy="name the list of the service that you connect to",
                )
            check_end(found, self._now())
            admit(self._store, file)
            self._data, self._due = data, min(self._now() + REFRESH_S, unix_of(found.expires))
        return found

    def to_policy(self, service: str) -> Policy:
        """A policy for what is published now. Raises as :meth:`measurements`; RefusedError ``published.none``."""
        return self.measurements(service).to_policy(self._roots)

    def _get(self) -> bytes:
        if not self._source.startswith(("http://", "https://")):
            return read_bounded(Path(self._source), MAX_FILE)
        if self._now() < self._due:
            return self._data
        try:
            return get(self._source, MAX_FILE, self._error, tls=self._tls)
        except UnreachableError:
            if not self._data:
                raise
            return self._data

    def _error(self, problem: str, found: str) -> UnreachableError:
        return UnreachableError(
            "published.source",
            f"cannot get the published list from {self._source}: {problem}",
            found=found,
            remedy="check the URL; a copy of the file from anywhere is as good",
        )


def _key(publisher: str | Path) -> Ed25519PublicKey:
    text = str(publisher)
    return public_key(text if text.startswith("ed25519:") else key_name(load_public_key(Path(text))))
