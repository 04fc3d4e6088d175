"""The log's writer: append-only, durable before it returns, safe for threads, processes and crashes.

An entry is appended and synced, then the head is signed and replaced. Between the two lies the only moment at which a
crash shows: one entry, or part of one, without a head. The next append or open puts that right: an entry that is whole,
that continues the chain and that carries the writer's own signature is adopted; part of one is cut off. Neither was
ever acknowledged. Anything else after the head is tampering and stops the writer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit.chain import Chain, follow, read_tail
from ensconce.audit.entry import Entry, FieldValue, make_entry
from ensconce.audit.head import MAX_HEAD, Head, parse_head, sign_head
from ensconce.audit.storage import HEAD, LOG, locked
from ensconce.audit.verify import head_missing, read_entries
from ensconce.errors import InputError
from ensconce.files import read_bounded, sync_folder, write_aside
from ensconce.times import utc_text

__all__ = ["AuditLog"]


class AuditLog:
    """An audit log open for appending; make one with ``open``.

    Threads may share it; processes may each open their own on the same folder.
    """

    def __init__(self, folder: Path, signing_key: Ed25519PrivateKey, now: Callable[[], int]) -> None:
        """For ``open``."""
        self._folder = folder
        self._key = signing_key
        self._public_key = signing_key.public_key()
        self._now = now
        self._mutex = threading.Lock()
        self._chain = Chain()

    @classmethod
    def open(cls, folder: Path, signing_key: Ed25519PrivateKey, now: Callable[[], int]) -> AuditLog:
        """Open the log in ``folder``, checking all of it; a missing one is begun (its parent folder must exist).

        Args:
            folder: the log's own folder, 0700.
            signing_key: the owner's key; a log has one for life.
            now: the clock, Unix time in seconds.

        Raises:
            InputError: ``audit.open``, ``audit.lock``, ``audit.write``: the folder cannot be used.
            IntegrityError: ``audit.*``: the log was changed; nothing is ever appended to such a log.
        """
        log = cls(folder, signing_key, now)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InputError(
                "audit.open", f"cannot make the folder {folder}: {error.strerror}", remedy="check its parent folder"
            ) from error
        with log._locked_file() as file:
            for left in folder.glob(f".{HEAD}.*.part"):
                left.unlink(missing_ok=True)
            if not (folder / HEAD).exists():
                if _size(file):
                    raise head_missing()
                log._sign_head(log._chain)
            log._catch_up(file)
        return log

    def append(self, event: str, /, **fields: FieldValue) -> Entry:
        """Record an event. It is on disk, chained and covered by a signed head when this returns.

        When this raises, the event counts as not recorded: do not do what it announces. (It may yet turn up in the log,
        if the entry was written and the head was not. The log can say too much, never too little.)

        Args:
            event: dotted name, e.g. ``key.released``.
            fields: text, whole numbers, truth values, lists of these. Text beyond 1024 characters is cut and says so.
                No secrets.

        Raises:
            InputError: ``audit.event``, ``audit.field``: not something that the log takes; ``audit.write``,
                ``file.*``: the disk is full or failing.
            IntegrityError: the log was changed since.
        """
        with self._locked_file() as file:
            # Nobody rereads the log for an append: while its length is what we left, nothing was added.
            if _size(file) != self._chain.offset:
                self._catch_up(file)
            time = utc_text(self._now())
            entry = make_entry(self._chain.size, time, event, fields, self._chain.last, self._key)
            line = entry.to_line()
            self._write(file, line)
            chain = self._chain.copy()
            chain.extend(entry, len(line))
            self._sign_head(chain)
            self._chain = chain
        return entry

    def entries(self) -> Iterator[Entry]:
        """The entries so far, in order. Raises as :func:`~ensconce.audit.verify.read_entries`."""
        return read_entries(self._folder)

    def head(self) -> Head:
        """The current signed head.

        Raises:
            InputError: it cannot be read.
            IntegrityError: it was changed.
        """
        return parse_head(read_bounded(self._folder / HEAD, MAX_HEAD), self._public_key)

    def _write(self, file: int, line: bytes) -> None:
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(file, line[done:], self._chain.offset + done)
            os.fsync(file)
        except OSError as error:
            raise _cannot_write(self._folder, error) from error

    def _catch_up(self, file: int) -> None:
        end = _size(file)
        with open(file, "rb", closefd=False) as reader:
            chain = follow(reader, self._chain, self.head(), end, self._public_key)
            tail = read_tail(reader, chain, end, self._public_key)
        if tail.torn:
            try:
                os.ftruncate(file, chain.offset)
                os.fsync(file)
            except OSError as error:
                raise _cannot_write(self._folder, error) from error
        elif tail.entry is not None:
            chain.extend(tail.entry, end - chain.offset)
            self._sign_head(chain)
        self._chain = chain

    def _sign_head(self, chain: Chain) -> None:
        time = utc_text(self._now())
        head = sign_head(chain.size, chain.frontier.root(), chain.last, time, self._key)
        write_aside(self._folder / HEAD, head.to_bytes(), mode=0o600)

    @contextlib.contextmanager
    def _locked_file(self) -> Iterator[int]:
        with self._mutex, locked(self._folder):
            path = self._folder / LOG
            try:
                new = not path.exists()
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                if new:
                    sync_folder(self._folder)
            except OSError as error:
                raise _cannot_write(self._folder, error) from error
            try:
                yield handle
            finally:
                os.close(handle)


def _size(file: int) -> int:
    return os.fstat(file).st_size


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        "audit.write",
        f"cannot write the audit log in {folder}: {error.strerror}",
        rule="what is not recorded does not happen",
        remedy="free some space or check the permissions",
    )
