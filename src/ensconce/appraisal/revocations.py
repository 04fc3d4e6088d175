"""Revocations that stick: a certificate that its issuer once revoked stays revoked, whatever later lists say.

Intel's revocation lists carry the same CRL number for years, and genuine lists that were valid at the same time have
differed by dozens of entries, so neither number nor date says which list knows more. What is kept here is the union of
all lists whose signatures held, for each issuer, in a document that servers share and that only grows. A list that
leaves out what an earlier one had is reported, and changes nothing.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ensconce import strict_json
from ensconce.appraisal.vetting import Link, RevocationList
from ensconce.errors import EnsconceError, EvidenceError, IntegrityError
from ensconce.state.store import Store
from ensconce.times import utc_text

__all__ = ["REVOCATIONS", "Revocations"]

REVOCATIONS = "revocations"
"""Name of the document: ``{"version": 1, "issuers": {SHA-256 of the key: {"name", "issued", "serials"}}}``."""

_REREAD_S = 5.0
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Issuer:
    """What one issuer revoked: in any list, and when the latest of them was issued."""

    name: str
    issued: int
    serials: set[str]


class Revocations:
    """The union, in memory and in a store. Safe to share between threads; processes share the store.

    Args:
        store: where the document is.
        clock: seconds that only go forward: other servers' additions are seen within five of them.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._issuers: dict[str, _Issuer] = {}
        self._document: bytes | None = None
        self._read_at: float | None = None
        self._unsaved = False
        # By issuer, what its newest list leaves out.
        self._left_out: dict[str, frozenset[str]] = {}

    @property
    def left_out(self) -> int:
        """How many certificates were revoked once and are not in their issuer's latest list: worth an alarm."""
        with self._lock:
            return sum(map(len, self._left_out.values()))

    def learn(self, lists: Iterable[RevocationList]) -> None:
        """Add what lists revoke. Only for lists whose signatures held under an accepted root (``vetting.vet``).

        What cannot be written is known to this process all the same, and written with the next.

        Raises:
            IntegrityError: ``revocations.document``: what is in the store cannot be read.
        """
        with self._lock:
            self._reread(must=True)
            for each in lists:
                self._learn(each)
            if self._unsaved:
                self._save()

    def refuse(self, links: Iterable[Link]) -> None:
        """Refuse certificates of which one was once revoked.

        Args:
            links: judged; that each issuer signed is the caller's to know.

        Raises:
            EvidenceError: ``<check of the link>.revoked``.
            IntegrityError: as :meth:`learn`.
        """
        with self._lock:
            self._reread(must=False)
            found = next((link for link in links if self._is_revoked(link)), None)
        if found is not None:
            raise EvidenceError(
                f"{found.check}.revoked",
                "a certificate was revoked, now or in an earlier list",
                found=f"{found.subject}, serial number {found.serial}",
                rule="what its issuer revoked once stays revoked",
                remedy="use another machine; the issuer has not vouched for this key at all times",
            )

    def _is_revoked(self, link: Link) -> bool:
        issuer = self._issuers.get(link.issuer)
        return issuer is not None and link.serial in issuer.serials

    def _learn(self, each: RevocationList) -> None:
        known = self._issuers.setdefault(each.issuer, _Issuer(each.issuer_name, each.issued, set()))
        if not each.serials <= known.serials or each.issued > known.issued:
            self._unsaved = True
        # An older list knows less without anybody having taken something back.
        if each.issued >= known.issued:
            known.issued = each.issued
            self._report(each, frozenset(known.serials - each.serials))
        known.serials |= each.serials

    def _report(self, latest: RevocationList, missing: frozenset[str]) -> None:
        before = self._left_out.get(latest.issuer, frozenset())
        self._left_out[latest.issuer] = missing
        if missing - before:
            _log.warning(
                "the revocation list of %s issued at %s leaves out %d certificates that were revoked before; they stay "
                "revoked here",
                latest.issuer_name,
                utc_text(latest.issued),
                len(missing),
            )

    def _reread(self, *, must: bool) -> None:
        now = self._clock()
        if not must and self._read_at is not None and now - self._read_at < _REREAD_S:
            return
        try:
            data = self._store.read(REVOCATIONS)
        except EnsconceError as error:
            # Before anything was read, nothing is known, and everything would pass.
            if self._read_at is None:
                raise
            _log.warning("revocations are those of %.0f s ago: %s", now - self._read_at, error)
            return
        self._merge(data)
        self._read_at = now

    def _merge(self, data: bytes | None) -> None:
        if data is None or data == self._document:
            return
        for key, read in _read(data).items():
            known = self._issuers.setdefault(key, read)
            known.issued = max(known.issued, read.issued)
            known.serials |= read.serials
        self._document = data

    def _save(self) -> None:
        try:
            with self._store.locked(REVOCATIONS) as slot:
                self._merge(slot.read())
                data = _write(self._issuers)
                slot.write(data)
        except IntegrityError:
            raise
        except EnsconceError as error:
            _log.warning("new revocations are not written yet: %s", error)
            return
        self._document = data
        self._unsaved = False


def _write(issuers: Mapping[str, _Issuer]) -> bytes:
    entries = {
        key: {"name": each.name, "issued": each.issued, "serials": sorted(each.serials)}
        for key, each in issuers.items()
    }
    return json.dumps({"version": 1, "issuers": entries}, sort_keys=True).encode()


def _read(data: bytes) -> dict[str, _Issuer]:
    try:
        value: Any = strict_json.loads(data)
        if not isinstance(value, dict) or set(value) != {"version", "issuers"} or value["version"] != 1:
            raise ValueError("its members are others, or its version is")
        return {_checked_key(key): _checked(entry) for key, entry in value["issuers"].items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise IntegrityError(
            "revocations.document",
            "the revocations that were seen cannot be read",
            found=str(error)[:200],
            rule="an object of version 1 with issuers",
            remedy="restore the document `revocations` of the state from a backup",
        ) from error


def _checked_key(key: str) -> str:
    if not _KEY_ID.fullmatch(key):
        raise ValueError("the key of an issuer is malformed")
    return key


def _checked(entry: Any) -> _Issuer:
    if not isinstance(entry, dict) or set(entry) != {"name", "issued", "serials"}:
        raise ValueError("the members of an issuer are others")
    name, issued, serials = entry["name"], entry["issued"], entry["serials"]
    if not isinstance(name, str) or type(issued) is not int or not isinstance(serials, list):
        raise ValueError("a member of an issuer is of another type")
    if not all(isinstance(each, str) and _SERIAL.fullmatch(each) for each in serials):
        raise ValueError("a serial number is malformed")
    return _Issuer(name, issued, set(serials))
