"""A keystore whose every change is in the audit log, and a log that tells when the keystore is older than it."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.entry import Entry
from ensconce.audit.log import AuditLog
from ensconce.audit.reader import LogReader
from ensconce.audit.storage import LogStorage
from ensconce.errors import IntegrityError
from ensconce.keys import KeyEntry, Kind, SealedKeystore
from ensconce.keys.sealed_keystore import rolled_back

__all__ = ["RecordedKeystore", "ReleasingKeystore", "check_against_log", "retired_in"]

_RETIRED = ("key.retiring", "key.retired")  # announced, and done


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
        self._keystore.put(
            key_id,
            secret,
            kind=kind,
            record=lambda generation: self._log.append("key.added", key_id=key_id, kind=kind, generation=generation),
        )

    def get(self, key_id: str) -> bytes:
        """The secret of a live key. Raises as :meth:`Keystore.get`."""
        return self._keystore.get(key_id)

    def retire(self, key_id: str) -> None:
        """Record ``key.retiring``, destroy the secret, record ``key.retired``.

        Retiring a retired key completes what was interrupted, and otherwise changes nothing. Raises as
        :meth:`Keystore.retire`, and as the log does.
        """
        announced = False

        def announce(generation: int) -> None:
            nonlocal announced
            self._log.append("key.retiring", key_id=key_id, generation=generation)
            announced = True

        self._keystore.retire(key_id, record=announce)
        if announced or not any(_is_retired(each, key_id) for each in self._log.entries()):
            self._log.append("key.retired", key_id=key_id, generation=self._keystore.generation)

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id. Raises as :meth:`Keystore.entries`."""
        return self._keystore.entries()


class ReleasingKeystore(RecordedKeystore):
    """The keystore of a running server: it gives nothing that the log says was retired, whatever the keystore holds.

    Whoever can write the store might put an earlier keystore there before the server has seen the later one. The log
    shows that: the server goes on appending to it, so it cannot be put back as well.

    Args:
        keystore: opened.
        log: the server's own, to be written.
        storage: where that log is.
        public_key: the owner's.

    Raises:
        IntegrityError: ``keystore.rollback``: the keystore is older than the log; ``audit.*``: the log was changed.
    """

    def __init__(
        self, keystore: SealedKeystore, log: AuditLog, storage: LogStorage, public_key: Ed25519PublicKey
    ) -> None:
        super().__init__(keystore, log)
        self._events = LogReader(
            storage, public_key, lambda entry: entry.event in _RETIRED or "generation" in entry.fields
        )
        check_against_log(keystore, self._events.entries())

    def get(self, key_id: str) -> bytes:
        """The secret of a live key. Raises as :meth:`Keystore.get`, and as :meth:`LogReader.entries`."""
        # Before the keystore is asked: what is retired in between is not live there any more.
        events = self._events.entries()
        secret = super().get(key_id)
        if any(_is_retired(each, key_id) for each in events):
            raise _put_back([key_id])
        return secret


def _is_retired(entry: Entry, key_id: str) -> bool:
    return entry.event == _RETIRED[-1] and entry.fields.get("key_id") == key_id


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
    # At rest: a key that is being retired at this moment is live, and announced already.
    with keystore.at_rest() as contents:
        if contents.generation < highest:
            raise rolled_back(contents.generation, highest)
        live = sorted(entry.key_id for entry in contents.entries() if entry.retired is None)
    back = [key_id for key_id in live if key_id in retired]
    if back:
        raise _put_back(back)


def _put_back(live: list[str]) -> IntegrityError:
    return IntegrityError(
        "keystore.rollback",
        "a key is live that the audit log says was retired: the keystore was put back to an earlier state, or "
        "retiring it was interrupted",
        found=", ".join(live[:5]),
        remedy=f"ensconce key retire {live[0]}",
    )
