"""A keystore in one sealed file: whole or absent after any crash, safe for several processes at once.

The folder (0700) holds ``keystore.sealed`` (0600; its format is in :mod:`ensconce.keys.sealed`) and ``lock``. A writer
reads, changes and replaces the file under an exclusive ``flock`` on ``lock``; a reader needs no lock, because the file
is only ever replaced by a rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ensconce.errors import InputError, IntegrityError
from ensconce.files import read_bounded, write_aside
from ensconce.keys.keystore import KeyEntry, Kind, check_new_key, key_exists, key_retired, key_unknown
from ensconce.keys.sealed import MAX_FILE, Header, Record, new_header, open_sealed, parse_header, seal
from ensconce.keys.unlock import Passphrase, SealKeys, Unlock, check_new_passphrase, derive

__all__ = ["FileKeystore"]

_FILE = "keystore.sealed"
_LOCK = "lock"


def _unix_time() -> int:
    return int(time.time())


class FileKeystore:
    """The :class:`~ensconce.keys.keystore.Keystore` on the owner's own disk; make one with ``create`` or ``open``.

    Threads and processes may share it. Each call reads the file anew, so what another process put is seen at once. The
    keys derived from the passphrase stay in memory for as long as the object lives.
    """

    def __init__(self, folder: Path, header: Header, keys: SealKeys, now: Callable[[], int]) -> None:
        """For ``create`` and ``open``."""
        self._folder = folder
        self._header = header
        self._keys = keys
        self._now = now

    def __repr__(self) -> str:
        return f"FileKeystore({str(self._folder)!r})"

    @classmethod
    def create(cls, folder: Path, unlock: Unlock, *, now: Callable[[], int] = _unix_time) -> FileKeystore:
        """Make an empty keystore; ``folder`` is made (0700) when it is missing, its parent must exist.

        Raises:
            InputError: ``keystore.exists``; ``keystore.permissions``; ``keystore.passphrase`` (too short); a key file
                that cannot be used; a folder that cannot be written.
        """
        if isinstance(unlock, Passphrase):
            check_new_passphrase(unlock)
        header = new_header(unlock)
        keystore = cls(folder, header, derive(unlock, header.salt, header.cost), now)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InputError(
                "keystore.create",
                f"cannot make the folder {folder}: {error.strerror}",
                remedy="check its parent folder",
            ) from error
        _check_private(folder, "0700")
        with keystore._locked():
            if (folder / _FILE).exists():
                raise InputError(
                    "keystore.exists",
                    f"there is a keystore in {folder} already",
                    rule="a keystore is never overwritten: every sealed model would be lost",
                    remedy="open it, or choose another folder",
                )
            keystore._write({})
        return keystore

    @classmethod
    def open(cls, folder: Path, unlock: Unlock, *, now: Callable[[], int] = _unix_time) -> FileKeystore:
        """Open a keystore and check all of it.

        Raises:
            InputError: ``keystore.missing``; ``keystore.permissions`` when others can read it; ``keystore.unlock`` when
                it wants a key file and a passphrase was given, or the other way round; a key file that cannot be used.
            IntegrityError: ``keystore.format`` or ``keystore.seal`` (wrong passphrase, or damaged).
        """
        if not (folder / _FILE).exists():
            raise InputError(
                "keystore.missing", f"there is no keystore in {folder}", remedy="check the path, or run: ensconce init"
            )
        _check_private(folder, "0700")
        _check_private(folder / _FILE, "0600")
        data = read_bounded(folder / _FILE, MAX_FILE)
        header = parse_header(data)
        keys = derive(unlock, header.salt, header.cost)
        open_sealed(data, keys)
        return cls(folder, header, keys, now)

    def put(self, key_id: str, secret: bytes, *, kind: Kind) -> None:
        """Store a new secret; durable when this returns. Raises as :meth:`Keystore.put`."""
        check_new_key(key_id, secret, kind)
        with self._locked():
            records = self._read()
            if key_id in records:
                raise key_exists(records[key_id].entry)
            records[key_id] = Record(KeyEntry(key_id, kind, self._now(), None), bytes(secret))
            self._write(records)

    def get(self, key_id: str) -> bytes:
        """The secret of a live key. Raises as :meth:`Keystore.get`."""
        record = self._read().get(key_id)
        if record is None:
            raise key_unknown(key_id)
        if record.secret is None:
            raise key_retired(record.entry)
        return record.secret

    def retire(self, key_id: str) -> None:
        """Destroy a key's bytes and keep its id taken. Raises as :meth:`Keystore.retire`."""
        with self._locked():
            records = self._read()
            if key_id not in records:
                raise key_unknown(key_id)
            entry = records[key_id].entry
            if entry.retired is None:
                records[key_id] = Record(KeyEntry(key_id, entry.kind, entry.created, self._now()), None)
                self._write(records)

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id. Raises as :meth:`Keystore.entries`."""
        return tuple(record.entry for _, record in sorted(self._read().items()))

    def _read(self) -> dict[str, Record]:
        data = read_bounded(self._folder / _FILE, MAX_FILE)
        if parse_header(data) != self._header:
            raise IntegrityError(
                "keystore.seal",
                f"another keystore has taken the place of the one that was opened in {self._folder}",
                remedy="open it again; if nobody replaced it on purpose, restore it from a backup",
            )
        return open_sealed(data, self._keys)

    def _write(self, records: dict[str, Record]) -> None:
        data = seal(self._header, self._keys, records)
        if len(data) > MAX_FILE:
            raise InputError(
                "keystore.full", "the keystore is full", found=f"{len(data)} bytes", rule=f"at most {MAX_FILE} bytes"
            )
        # What a killed writer left aside may still hold keys that were retired since.
        for left in self._folder.glob(f".{_FILE}.*.part"):
            left.unlink(missing_ok=True)
        write_aside(self._folder / _FILE, data, mode=0o600)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A descriptor of its own for each call: flock then holds between threads as well as between processes.
        try:
            handle = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InputError(
                "keystore.lock",
                f"cannot lock the keystore in {self._folder}: {error.strerror}",
                remedy="check the folder's permissions",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _check_private(path: Path, wanted: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise InputError(
            "keystore.permissions",
            f"others can read or write {path}",
            found=f"mode {mode:04o}",
            rule=f"mode {wanted} or stricter",
            remedy=f"chmod {wanted.lstrip('0')} {path}",
        )
