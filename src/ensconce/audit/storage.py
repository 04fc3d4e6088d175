"""The log's folder: names, the lock, and a view of log and head that belong together."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ensconce.errors import InputError

__all__ = ["HEAD", "LOG", "locked", "missing", "snapshot"]

LOG = "log.jsonl"
HEAD = "head.json"
_LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone. ``flock`` on a descriptor of its own: it holds between threads and between processes.

    Raises:
        InputError: ``audit.lock``: the folder cannot be written.
    """
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InputError(
            "audit.lock", f"cannot lock the audit log in {folder}: {error.strerror}", remedy="check the permissions"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def snapshot(folder: Path) -> Iterator[tuple[BinaryIO, int, bytes | None]]:
    """The log opened for reading, how many bytes of it to look at, and the head's bytes, all of one moment.

    The lock, where there is one, is held only while the three are taken: what is already written does not change. A
    copy of a folder needs no lock and may be read-only.

    Raises:
        InputError: ``audit.missing``; ``audit.read``.
    """
    try:
        with contextlib.ExitStack() as held:
            lock = folder / _LOCK
            if lock.exists():
                handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_SH)
            head = (folder / HEAD).read_bytes() if (folder / HEAD).exists() else None
            if head is None and not (folder / LOG).exists():
                raise missing(folder)
            # A log that has not been written yet, or was removed, reads as empty: the head says which it is.
            path = folder / LOG if (folder / LOG).exists() else Path(os.devnull)
            file = path.open("rb")
            end = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            "audit.read", f"cannot read the audit log in {folder}: {error.strerror}", remedy="check the permissions"
        ) from error
    with file:
        yield file, end, head


def missing(folder: Path) -> InputError:
    """The error for a folder without a log."""
    return InputError("audit.missing", f"there is no audit log in {folder}", remedy="check the path")
