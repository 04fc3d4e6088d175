"""What publishers have published, as a client gets it: from a URL or a file, checked anew for every connection."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_owners import key_name, public_key
from ensconce.appraisal.published import Measurements, PublishedEnclave, check_end
from ensconce.audit.public import load_public_key
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.files import read_bounded
from ensconce.folders import make_below, state_folder
from ensconce.publication.file import MAX_FILE, parse_published
from ensconce.publication.remembered import admit
from ensconce.publication.sigstore import SigstoreIdentity, SigstoreTrust
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store
from ensconce.times import unix_now, unix_of
from ensconce.trail import exhibit, held
from ensconce.web import get

__all__ = ["REFRESH_S", "Publication", "PublishedList"]

REFRESH_S = 3600
"""How long a client goes on with a list before it asks for a newer one, in seconds."""

_RETRY_S = 60
_TIMEOUT_S = 20.0
_MAX_PUBLISHERS = 16


@dataclass(frozen=True)
class Publication:
    """A list that was believed, for those who report it.

    Attributes:
        source: where it was published: URL or path of a file.
        publisher: whose word it is: name of a key, or an identity.
        measurements: what it says.
    """

    source: str
    publisher: str
    measurements: Measurements

    def to_json_object(self, enclave: PublishedEnclave | None) -> dict[str, Any]:
        """For programs, with the enclave in it that was met, if it is there."""
        return {
            "source": self.source,
            "publisher": self.publisher,
            "serial": self.measurements.serial,
            "created": self.measurements.created,
            "expires": self.measurements.expires,
            "enclave": None if enclave is None else enclave.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class _Kept:
    data: bytes
    due: int


class PublishedList:
    """The list at one place, under the names of those who may have signed it. Safe to share between threads.

    Args:
        source: http or https URL, or the path of a file.
        publishers: whom to believe: files with a key (``owner.pub``), or keys by name, ``ed25519:<64 digits>``.
        identities: whom to believe as well, by a Sigstore bundle in the list; any one of keys and identities is enough.
        trust_root: the trusted root of a Sigstore instance of one's own, instead of the public one's.
        roots: for :meth:`to_policy`: names of the roots that evidence may hang from.
        ca_file: PEM file of the authorities of an https URL, instead of the system's.
        store: what remembers the newest list; this user's state folder when absent.
        now: the clock, seconds since 1970.

    Raises:
        InputError: no publisher, or one that is none; ``published.sigstore_missing``, ``published.trust_root``;
            ``published.ca_file``; ``folder.state``.
    """

    def __init__(
        self,
        source: str | Path,
        publishers: Sequence[str | Path] = (),
        *,
        identities: Sequence[SigstoreIdentity] = (),
        trust_root: Path | None = None,
        roots: tuple[str, ...] = ("intel",),
        ca_file: Path | None = None,
        store: Store | None = None,
        now: Callable[[], int] = unix_now,
    ) -> None:
        named = len(publishers) + len(identities)
        if not 1 <= named <= _MAX_PUBLISHERS:
            raise InputError(
                "published.publisher",
                "so many publishers" if named else "nobody is named whose list is to be believed",
                rule=f"1 to {_MAX_PUBLISHERS} publishers' keys and identities",
                remedy="name the publisher's key, owner.pub (--publisher), or identity (--publisher-identity)",
            )
        self._keys = [_key(each) for each in publishers]
        self._sigstore = SigstoreTrust.load(identities, trust_root) if identities else None
        self._source = str(source)
        self._is_remote = self._source.startswith(("http://", "https://"))
        self._roots = roots
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if self._source.startswith("https:") else None
        except OSError as error:
            raise InputError(
                "published.ca_file", f"cannot use {ca_file}: {error.strerror or error}", remedy="name a PEM file"
            ) from error
        self._store = FolderStore(make_below(state_folder(), "state")) if store is None else store
        self._now = now
        self._kept: _Kept | None = None
        self._asking = threading.Lock()

    def measurements(self, service: str) -> Measurements:
        """What is published for a service, if all of it holds and nothing newer was ever seen.

        A URL is asked again when an hour has passed, by one thread while others go on with the list at hand; while it
        does not answer, the list at hand is good until its end. Nobody waits for somebody else's request.

        Args:
            service: TLS name.

        Raises:
            EvidenceError: as :func:`~ensconce.publication.file.parse_published`; ``published.rollback``,
                ``published.fork``, ``published.key``; ``published.service``: the list is about another service.
            RefusedError: ``published.expired``.
            IntegrityError: ``audit.*``: the publisher's log was bent; ``published.remembered``.
            UnreachableError: ``published.source``: the URL gave no list yet.
            InputError: ``file.*``, ``state.*``.
        """
        kept = self._kept
        if kept is not None and (self._now() < kept.due or not self._asking.acquire(blocking=False)):
            try:
                return self._judged(kept.data, service)
            except EvidenceError as error:
                # Somebody else, in this process or another, has seen a newer one meanwhile.
                if error.check != "published.rollback":
                    raise
            return self._asked(service)
        try:
            return self._asked(service)
        finally:
            if kept is not None:
                self._asking.release()

    def _asked(self, service: str) -> Measurements:
        """By what the source says now; what does not hold is not kept, and is asked for again at once."""
        kept = self._kept
        try:
            data, due = self._get(), self._now() + REFRESH_S
        except UnreachableError:
            if kept is None:
                raise
            data, due = kept.data, self._now() + _RETRY_S
        found = self._judged(data, service)
        if self._is_remote:
            self._kept = _Kept(data, min(due, unix_of(found.expires)))
        return found

    def _judged(self, data: bytes, service: str) -> Measurements:
        file = parse_published(data, self._keys, self._sigstore)
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
        held("published.source", "list", found=self._source, rule=self._source)
        exhibit("publication", Publication(self._source, file.believed, found))
        return found

    def to_policy(self, service: str) -> Policy:
        """A policy for what is published now. Raises as :meth:`measurements`; RefusedError ``published.none``."""
        return self.measurements(service).to_policy(self._roots)

    def _get(self) -> bytes:
        if not self._is_remote:
            return read_bounded(Path(self._source), MAX_FILE)
        return get(self._source, MAX_FILE, self._error, timeout=_TIMEOUT_S, tls=self._tls)

    def _error(self, problem: str, found: str) -> UnreachableError:
        return UnreachableError(
            "published.source",
            f"cannot get the published list from {self._source}: {problem}",
            found=found,
            remedy="check the URL; a copy of the file from anywhere is as good",
        )


def _key(publisher: str | Path) -> Ed25519PublicKey:
    text = str(publisher)
    name = text if text.startswith("ed25519:") else key_name(load_public_key(Path(text)))
    try:
        return public_key(name)
    except InputError as error:  # It speaks of a policy's owners.
        raise InputError(
            "published.publisher", "no publisher has such a key", found=name, rule=error.rule, remedy=error.remedy
        ) from error
