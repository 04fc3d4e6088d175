"""A keystore whose every change is in the audit log, and a log that tells when the keystore is older than it."""

from __future__ import annotations

from collections.abc import Iterable

from ensconce.audit.entry import Entry
from ensconce.audit.log import AuditLog
from ensconce.errors import IntegrityError
from ensconce.keys import KeyEntry, Kind, SealedKeystore
from ensconce.keys.keystore import check_new_key, key_exists, key_unknown
from ensconce.keys.sealed_keystore import rolled_back

__all__ = ["RecordedKeystore", "check_against_log", "retired_in"]

_RETIRED = ("key.retiring", "key.retired")


class RecordedKeystore:
    """The :class:`~ensconce.keys.keystore.Keystore` that commands change: the log first, then the keystore.

    What cannot be recorded does not happen. A key is retired between two entries: ``key.retiring`` announces it, and
    from ``key.retired`` on nothing that begins can receive the key.
    """

    def __init__(self, keystore: SealedKeystore, log: AuditLog) -> None:
        self._keystore = keystore
        self._log = log

    def put(self, key_id: str, secret: bytes, *, kind: Kind) -> None:
        """Record ``key.added``, then store a new secret. Raises as :meth:`Keystore.put`, and as the log does."""
        check_new_key(key_id, secret, kind)
        entry = self._find(key_id)
        if entry is not None:
            raise key_exists(entry)
        self._log.append("key.added", key_id=key_id, kind=kind, generation=self._keystore.generation)
        self._keystore.put(key_id, secret, kind=kind)

    def get(self, key_id: str) -> bytes:
        """The secret of a live key. Raises as :meth:`Keystore.get`."""
        return self._keystore.get(key_id)

    def retire(self, key_id: str) -> None:
        """Record ``key.retiring``, destroy the secret, record ``key.retired``.

        Retiring a retired key completes what was interrupted, and otherwise changes nothing. Raises as
        :meth:`Keystore.retire`, and as the log does.
        """
        entry = self._find(key_id)
        if entry is None:
            raise key_unknown(key_id)
        if entry.retired is None:
            self._log.append("key.retiring", key_id=key_id, generation=self._keystore.generation)
            self._keystore.retire(key_id)
        elif any(each.event == "key.retired" and each.fields.get("key_id") == key_id for each in self._log.entries()):
            return
        self._log.append("key.retired", key_id=key_id, generation=self._keystore.generation)

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id. Raises as :meth:`Keystore.entries`."""
        return self._keystore.entries()

    def _find(self, key_id: str) -> KeyEntry | None:
        return next((entry for entry in self._keystore.entries() if entry.key_id == key_id), None)


def retired_in(entries: Iterable[Entry]) -> tuple[frozenset[str], int]:
    """The ids of all keys that a log says were retired, and the highest generation that it names."""
    retired, highest = set(), 0
    for entry in entries:
        generation = entry.fields.get("generation")
        if type(generation) is int:
            highest = max(highest, generation)
        key_id = entry.fields.get("key_id")
        if entry.event in _RETIRED and isinstance(key_id, str):
            retired.add(key_id)
    return frozenset(retired), highest


def check_against_log(keystore: SealedKeystore, entries: Iterable[Entry]) -> None:
    """Refuse a keystore that is older than what the log has seen.

    Args:
        keystore: opened.
        entries: of the verified log.

    Raises:
        IntegrityError: ``keystore.rollback``: its generation is below one that the log names, or a key is live that the
            log says was retired.
    """
    retired, highest = retired_in(entries)
    with keystore.contents() as contents:
        if contents.generation < highest:
            raise rolled_back(contents.generation, highest)
        live = sorted(entry.key_id for entry in contents.entries() if entry.retired is None)
    back = [key_id for key_id in live if key_id in retired]
    if back:
        raise IntegrityError(
            "keystore.rollback",
            "a key is live that the audit log says was retired: the keystore was put back to an earlier state, or "
            "retiring it was interrupted",
            found=", ".join(back[:5]),
            remedy=f"ensconce key retire {back[0]}",
        )
