"""A log in a folder of this machine: ``log.jsonl``, ``head.json``, and ``lock``, which writers hold with ``flock``."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from ensconce.audit.entry import MAX_LINE
from ensconce.audit.head import MAX_HEAD
from ensconce.audit.storage import HEAD, LOG, LogStorage, LogView, Position, missing
from ensconce.errors import InputError
from ensconce.files import holding, sync_folder, write_aside

__all__ = ["FolderLog", "storage_at"]

_LOCK = "lock"


class FolderLog:
    """The log in ``folder``; the protocol is :class:`~ensconce.audit.storage.LogStorage`.

    Lines are appended and synced, then the head is replaced: between the two a crash leaves lines without a head.

    Args:
        folder: the log's own folder; a read-only copy of one can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Make the folder (mode 0700; its parent must exist), and remove heads that were not written to their end.

        Raises:
            InputError: ``audit.open``, ``audit.lock``.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with _locked(self._folder):
                for left in self._folder.glob(f".{HEAD}.*.part"):
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                "audit.open",
                f"cannot make the folder {self._folder}: {error.strerror}",
                remedy="check its parent folder",
            ) from error

    @contextlib.contextmanager
    def view(self) -> Iterator[LogView]:
        """Log and head of one moment.

        The lock, where there is one, is held only while the two are taken: what is already written does not change. A
        copy of a folder needs no lock.

        Raises:
            InputError: ``audit.missing``; ``audit.read``.
        """
        try:
            with contextlib.ExitStack() as held:
                lock = self._folder / _LOCK
                if lock.exists():
                    handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
                    held.callback(os.close, handle)
                    fcntl.flock(handle, fcntl.LOCK_SH)
                head = _read_head(self._folder)
                if head is None and not (self._folder / LOG).exists():
                    raise missing(self._folder)
                # A log that has not been written yet, or was removed, reads as empty: the head says which it is.
                path = self._folder / LOG if (self._folder / LOG).exists() else Path(os.devnull)
                file = path.open("rb")
                end = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InputError(
                "audit.read",
                f"cannot read the audit log in {self._folder}: {error.strerror}",
                remedy="check the permissions",
            ) from error
        with file:
            yield _View(file, end, head)

    @contextlib.contextmanager
    def held(self) -> Iterator[_Held]:
        """The log, held alone with ``flock``.

        Raises:
            InputError: ``audit.lock``, ``audit.write``: the folder or the log cannot be written.
        """
        with _locked(self._folder):
            path = self._folder / LOG
            try:
                new = not path.exists()
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                if new:
                    sync_folder(self._folder)
            except OSError as error:
                raise _cannot_write(self._folder, error) from error
            try:
                yield _Held(self._folder, handle)
            finally:
                os.close(handle)

    def __str__(self) -> str:
        return str(self._folder)


def storage_at(where: Path | LogStorage) -> LogStorage:
    """The storage meant: a path is a folder's."""
    return FolderLog(where) if isinstance(where, Path) else where


class _View:
    leaves_tail = True

    def __init__(self, file: BinaryIO, end: int, head: bytes | None) -> None:
        self._file = file
        self._end = end
        self.head = head

    def lines(self, after: Position) -> Iterator[bytes]:
        return _lines(self._file, after.offset, self._end)


class _Held:
    leaves_tail = True

    def __init__(self, folder: Path, file: int) -> None:
        self._folder = folder
        self._file = file

    @property
    def head(self) -> bytes | None:
        try:
            return _read_head(self._folder)
        except OSError as error:
            raise InputError(
                "audit.read",
                f"cannot read the head in {self._folder}: {error.strerror}",
                remedy="check the permissions",
            ) from error

    def lines(self, after: Position) -> Iterator[bytes]:
        with os.fdopen(os.dup(self._file), "rb") as reader:
            yield from _lines(reader, after.offset, self._size())

    def moved(self, since: Position, _head: bytes, /) -> bool:
        # Nobody can put another head there and leave the log as it was, but for an earlier one, which is replaced.
        return self._size() != since.offset

    def append(self, after: Position, lines: Sequence[bytes], head: bytes) -> None:
        if lines:
            self._write(after, b"".join(lines))
        try:
            write_aside(self._folder / HEAD, head, mode=0o600)
        except InputError as error:
            # Without its head the entry is not recorded. Where the new head did get its name, the entry must stay.
            with contextlib.suppress(OSError):
                if _read_head(self._folder) != head:
                    self._truncate(after)
            raise InputError("audit.write", error.problem, rule=_RULE, remedy=error.remedy) from error

    def cut(self, after: Position) -> None:
        try:
            self._truncate(after)
        except OSError as error:
            raise _cannot_write(self._folder, error) from error

    def _write(self, after: Position, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], after.offset + done)
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._truncate(after)
            raise _cannot_write(self._folder, error) from error

    def _truncate(self, after: Position) -> None:
        os.ftruncate(self._file, after.offset)
        os.fsync(self._file)

    def _size(self) -> int:
        return os.fstat(self._file).st_size


def _locked(folder: Path) -> AbstractContextManager[None]:
    return holding(folder / _LOCK, "audit.lock", "the audit log")


def _lines(file: BinaryIO, offset: int, end: int) -> Iterator[bytes]:
    while offset < end:
        file.seek(offset)
        line = file.readline(min(MAX_LINE + 1, end - offset))
        if not line:
            return  # a writer cut off what it could not finish
        offset += len(line)
        yield line


def _read_head(folder: Path) -> bytes | None:
    try:
        with (folder / HEAD).open("rb") as file:
            return file.read(MAX_HEAD + 1)
    except FileNotFoundError:
        return None


_RULE = "what is not recorded does not happen"


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        "audit.write",
        f"cannot write the audit log in {folder}: {error.strerror}",
        rule=_RULE,
        remedy="free some space or check the permissions",
    )
