"""Files that are either there in full or not at all: write aside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ensconce.errors import EnsconceError, InputError

__all__ = [
    "alone_in",
    "file_sha256",
    "holding",
    "read_bounded",
    "sync_folder",
    "system_error",
    "write_aside",
    "writing_aside",
]


@contextlib.contextmanager
def writing_aside(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: the file to make or replace; its folder must exist.
        mode: permission bits of the new file.

    Yields:
        A binary file opened for reading and writing, in the same folder as ``path``.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full; or ``path`` is a device, a pipe or a
            folder, whose place no file takes.
    """
    if path.exists() and not path.is_file():
        raise InputError(
            "file.create", f"cannot create {path}: it is there, and no regular file", remedy="name a file, or a new one"
        )
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _os_error("file.create", path, error) from error
    aside = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _os_error("file.write", path, error) from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_aside(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write ``data`` to ``path`` in full or not at all.

    Raises:
        InputError: as :func:`writing_aside`.
    """
    with writing_aside(path, mode) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in ``folder`` survive a power cut (fsync of the directory, POSIX)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        InputError: the file is missing, not readable, not a regular file, or longer than ``limit``.
    """
    try:
        if not path.is_file():
            reason = "it is not a regular file" if path.exists() else "there is no such file"
            raise InputError("file.read", f"cannot read {path}: {reason}", remedy="check the path")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _os_error("file.read", path, error) from error
    if len(data) > limit:
        raise InputError(
            "file.size",
            f"{path} is too large",
            found=f"more than {limit} bytes",
            rule=f"at most {limit} bytes",
            remedy="check that this is the right file",
        )
    return data


def file_sha256(path: Path) -> bytes:
    """SHA-256 of a regular file, 32 bytes; whoever names another, a pipe or a device, holds nobody up with it.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return hashlib.file_digest(stream, "sha256").digest()


@contextlib.contextmanager
def holding(lock: Path, check: str, what: str) -> Iterator[None]:
    """Hold a lock file alone, for the length of a block; waits for whoever holds it, a thread as well as a process.

    Args:
        lock: the file; it is made (0600) where it is missing, and stays.
        check: of the error when that cannot be done.
        what: is locked, in words.

    Raises:
        InputError: ``check``.
    """
    try:
        # A descriptor of its own for each call: flock(2) then holds between threads as well.
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        problem = f"cannot lock {what} with {lock}: {error.strerror}"
        raise InputError(check, problem, remedy="check the folder and its permissions") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone_in(folder: Path, busy: EnsconceError) -> Iterator[None]:
    """Hold a folder alone, for the length of a block; whoever finds it held does not wait.

    Args:
        folder: it must exist; its own descriptor is the lock, so that no file is left in it.
        busy: raised where somebody holds it.

    Raises:
        OSError: the folder cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(handle)


def system_error(error: OSError) -> InputError:
    """What the system said, for failures that nobody closer to them has put into better words."""
    named = None if error.filename is None else str(error.filename)
    return InputError("os.error", error.strerror or str(error), found=named, remedy=_remedy(error))


def _os_error(check: str, path: Path, error: OSError) -> InputError:
    problem = f"cannot {check.removeprefix('file.')} {path}: {error.strerror or error}"
    kept = "" if check == "file.read" else "; nothing was left half-written"
    return InputError(check, problem, remedy=_remedy(error) + kept)


def _remedy(error: OSError) -> str:
    remedies = {
        errno.ENOSPC: "free some space and try again",
        errno.EDQUOT: "raise the quota and try again",
        errno.EACCES: "check the permissions",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOENT: "check the path, and that its folder exists",
    }
    return remedies.get(error.errno or 0, "check the path and its folder")
