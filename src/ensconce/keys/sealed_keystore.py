"""The keystore: everything sealed as one whole, in a place that several processes may share.

Whole or absent after any crash: each change reads, changes and replaces the sealed bytes while holding the place alone.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from ensconce.errors import InputError, IntegrityError
from ensconce.keys.header import Header, parse_header
from ensconce.keys.keystore import KeyEntry, Kind, check_new_key, key_exists, key_retired, key_unknown
from ensconce.keys.lock import new_lock, open_lock
from ensconce.keys.place import Place
from ensconce.keys.sealed import MAX_FILE, Contents, Record, open_sealed, seal
from ensconce.keys.unlock import SealKeys, Unlock
from ensconce.state.store import Slot
from ensconce.times import unix_now

__all__ = ["SealedKeystore"]


@dataclass(frozen=True)
class _Opened:
    header: Header
    keys: SealKeys


class SealedKeystore:
    """The :class:`~ensconce.keys.keystore.Keystore`; make one with ``create`` or ``open``.

    Threads and processes may share the place. Each call reads it anew, so what another process put is seen at once, and
    so is a new root key, as long as the same unlock opens it. The derived keys stay in memory, locked where the
    system allows, for as long as the object lives.

    A keystore that was put back to an earlier state, or exchanged for another, is an IntegrityError for whoever has
    seen the later one.
    """

    def __init__(self, place: Place, unlock: Unlock, opened: _Opened, now: Callable[[], int]) -> None:
        """For ``create`` and ``open``."""
        self._place = place
        self._unlock = unlock
        self._opened = opened
        self._now = now
        self._identity: str | None = None
        self._generation = 0
        self._mutex = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._place)!r})"

    @classmethod
    def create(
        cls,
        place: Place,
        unlock: Unlock,
        *,
        deployment: str = "ensconce",
        contents: Contents | None = None,
        now: Callable[[], int] = unix_now,
    ) -> Self:
        """Make a keystore where there is none.

        Args:
            place: where.
            unlock: what will open it.
            deployment: the service's domain; a key service binds the root key to it.
            contents: what it holds, from a backup; None for an empty one.
            now: the clock, Unix time in seconds.

        Raises:
            InputError: ``keystore.exists``; ``keystore.passphrase`` (too short); an unlock that cannot be used; a place
                that cannot be written.
            UnreachableError: the key service or the store cannot be reached.
        """
        header, keys = new_lock(unlock, deployment)
        keystore = cls(place, unlock, _Opened(header, keys), now)
        with place.locked() as slot:
            if slot.read() is not None:
                raise InputError(
                    "keystore.exists",
                    f"there is a keystore in {place} already",
                    rule="a keystore is never overwritten: every sealed model would be lost",
                    remedy="open it, or choose another folder",
                )
            if contents is None:
                contents = Contents(secrets.token_hex(32), 0, {})
            keystore._write(slot, contents, contents.records)
        return keystore

    @classmethod
    def open(cls, place: Place, unlock: Unlock, *, now: Callable[[], int] = unix_now) -> Self:
        """Open a keystore and check all of it.

        Raises:
            InputError: ``keystore.missing``; ``keystore.permissions`` when others can read it; ``keystore.unlock`` when
                something else opens it; an unlock that cannot be used.
            IntegrityError: ``keystore.format`` or ``keystore.seal`` (wrong unlock, or damaged).
            UnreachableError: the key service or the store cannot be reached.
        """
        opened, contents = _open(place, place.read, unlock)
        keystore = cls(place, unlock, opened, now)
        with contents:
            keystore._believe(contents, 0)
        return keystore

    @property
    def generation(self) -> int:
        """How often the keystore has been written. Raises as :meth:`Keystore.entries`."""
        with self.contents() as contents:
            return contents.generation

    def put(self, key_id: str, secret: bytes, *, kind: Kind, record: Callable[[int], object] = lambda _: None) -> None:
        """Store a new secret; durable when this returns. Raises as :meth:`Keystore.put`; ``record``: see ``rewrap``."""
        check_new_key(key_id, secret, kind)
        with self._changing() as (slot, contents):
            if key_id in contents.records:
                raise key_exists(contents.records[key_id].entry)
            record(contents.generation)
            new = Record(KeyEntry(key_id, kind, self._now(), None), secret)
            self._write(slot, contents, contents.records | {key_id: new})

    def get(self, key_id: str) -> bytes:
        """The secret of a live key. Raises as :meth:`Keystore.get`."""
        with self.contents() as contents:
            record = contents.records.get(key_id)
            if record is None:
                raise key_unknown(key_id)
            if record.secret is None:
                raise key_retired(record.entry)
            return bytes(record.secret)

    def retire(self, key_id: str, *, record: Callable[[int], object] = lambda _: None) -> None:
        """Destroy a key's bytes, keep its id taken. Raises as :meth:`Keystore.retire`; ``record`` as :meth:`rewrap`."""
        with self._changing() as (slot, contents):
            if key_id not in contents.records:
                raise key_unknown(key_id)
            entry = contents.records[key_id].entry
            if entry.retired is None:
                record(contents.generation)
                gone = Record(replace(entry, retired=self._now()), None)
                self._write(slot, contents, contents.records | {key_id: gone})

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id. Raises as :meth:`Keystore.entries`."""
        with self.contents() as contents:
            return contents.entries()

    def rewrap(
        self,
        unlock: Unlock,
        *,
        deployment: str = "ensconce",
        record: Callable[[int], object] = lambda _: None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """Seal everything under a new root key that ``unlock`` opens; what opened it before opens it no more.

        Args:
            unlock: what opens it from now on; the same as before for a new root key alone.
            deployment: as for ``create``.
            record: called before the keystore is written, with the generation that it has; when it raises, nothing
                changes.
            settle: called when the keystore is written, before anybody else can change it.

        Raises:
            InputError, UnreachableError: the new unlock cannot be used; nothing has changed.
            IntegrityError: the keystore is damaged; ``keystore.wrap``: the new service does not unwrap what it wraps.
        """
        header, keys = new_lock(unlock, deployment)
        with self._changing() as (slot, contents):
            record(contents.generation)
            self._write(slot, contents, contents.records, _Opened(header, keys))
            self._unlock = unlock
            settle()

    @contextlib.contextmanager
    def contents(self) -> Iterator[Contents]:
        """Everything, in the clear, for the length of a block. Raises as :meth:`Keystore.entries`."""
        with self._unsealed(self._place.read) as contents:
            yield contents

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[Contents]:
        """As ``contents``, once whoever was changing it has finished, and until then nobody begins to."""
        with self._changing() as (_, contents):
            yield contents

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Slot, Contents]]:
        with self._place.locked() as slot, self._unsealed(slot.read) as contents:
            yield slot, contents

    @contextlib.contextmanager
    def _unsealed(self, read: Callable[[], bytes | None]) -> Iterator[Contents]:
        floor, before = self._generation, self._opened
        opened, contents = _open(self._place, read, self._unlock, before)
        with contents:
            self._believe(contents, floor)
            if opened is not before:
                self._opened = opened
            yield contents

    def _believe(self, contents: Contents, floor: int) -> None:
        with self._mutex:
            if self._identity not in (None, contents.identity):
                raise IntegrityError(
                    "keystore.seal",
                    f"another keystore has taken the place of the one that was opened in {self._place}",
                    remedy="if nobody replaced it on purpose, restore it from a backup; else start again",
                )
            if contents.generation < floor:
                raise rolled_back(contents.generation, floor)
            self._identity = contents.identity
            self._generation = max(self._generation, contents.generation)

    def _write(self, slot: Slot, contents: Contents, records: dict[str, Record], opened: _Opened | None = None) -> None:
        opened = opened or self._opened
        new = Contents(contents.identity, contents.generation + 1, records)
        data = seal(opened.header, opened.keys, new)
        if len(data) > MAX_FILE:
            raise InputError(
                "keystore.full", "the keystore is full", found=f"{len(data)} bytes", rule=f"at most {MAX_FILE} bytes"
            )
        slot.write(data)
        self._opened = opened
        self._believe(new, 0)


def _open(
    place: Place, read: Callable[[], bytes | None], unlock: Unlock, known: _Opened | None = None
) -> tuple[_Opened, Contents]:
    """What is sealed, and how it was opened: as before while the header is the same, else by the unlock."""
    data = read()
    while True:
        if data is None:
            raise _missing(place)
        try:
            header = parse_header(data)
            if known is not None and header == known.header:
                return known, open_sealed(data, header, iter((known.keys,)))[1]
            keys, contents = open_sealed(data, header, open_lock(unlock, header))
            return _Opened(header, keys), contents
        except (InputError, IntegrityError):
            # What opens it may have been replaced after it was read, and it with that.
            before, data = data, read()
            if data == before:
                raise


def rolled_back(found: int, seen: int) -> IntegrityError:
    """The error for a keystore that is older than one that was seen."""
    return IntegrityError(
        "keystore.rollback",
        "the keystore was put back to an earlier state: keys that were retired since may be live in it",
        found=f"generation {found}",
        rule=f"at least generation {seen}",
        remedy="put the newest keystore in its place; if there is none, recover from a backup with `ensconce key "
        "recover`, which retires what the audit log says was retired",
    )


def _missing(place: Place) -> InputError:
    return InputError(
        "keystore.missing",
        f"there is no keystore in {place}",
        remedy="check the path, or run: ensconce init; to restore one: ensconce key recover",
    )
