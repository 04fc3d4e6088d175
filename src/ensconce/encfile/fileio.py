"""Opening the file to read, refusing what cannot be meant, and whole reads and writes at an offset."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ensconce.encfile.names import shown
from ensconce.errors import InputError

__all__ = ["check_output", "opened", "read_at", "reader", "write_at"]


@contextlib.contextmanager
def opened(path: Path, *, follow: bool = True) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow: whether the last part of ``path`` may be a symbolic link.

    Yields:
        File descriptor and size in bytes.

    Raises:
        InputError: there is no such file, it may not be read, or is something else (a device, a pipe, a directory).
    """
    # O_NONBLOCK: opening a named pipe must not wait for somebody to write to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise InputError(
            "encfile.input", f"cannot read {shown(path)}: {error.strerror or error}", remedy="check the path"
        ) from error
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            kind = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise InputError("encfile.input", f"cannot read {shown(path)}: it is {kind}", rule="a regular file")
        yield handle, info.st_size
    finally:
        os.close(handle)


def read_at(handle: int, view: memoryview, offset: int, path: Path) -> None:
    """Fill ``view`` from ``offset``.

    With ``pread``, which copies once more, because Gramine 1.9 has no ``preadv``; and not with a seek before,
    because helper processes share the file's position.

    Raises:
        InputError: the device fails, or the file was cut off since it was opened.
    """
    while view:
        try:
            data = os.pread(handle, len(view), offset)
        except OSError as error:
            raise InputError("encfile.input", f"cannot read {shown(path)}: {error.strerror or error}") from error
        if not data:
            raise _cut_off(path, offset + len(view))
        view[: len(data)] = data
        view, offset = view[len(data) :], offset + len(data)


def reader(handle: int, path: Path) -> Callable[[memoryview, int], None]:
    """As :func:`read_at`, without a copy, for whoever has the file's position to itself.

    Raises:
        InputError: as there, when it is called.
    """
    file = io.FileIO(handle, closefd=False)

    def read(view: memoryview, offset: int) -> None:
        try:
            file.seek(offset)
            while view:
                count = file.readinto(view) or 0
                if not count:
                    raise _cut_off(path, offset + len(view))
                view, offset = view[count:], offset + count
        except OSError as error:
            raise InputError("encfile.input", f"cannot read {shown(path)}: {error.strerror or error}") from error

    return read


def _cut_off(path: Path, end: int) -> InputError:
    return InputError(
        "encfile.input_changed",
        f"{shown(path)} became shorter while it was read",
        found=f"it ends before byte {end}",
        remedy="let nothing write to it meanwhile",
    )


def write_at(handle: int, view: memoryview, offset: int) -> None:
    """Write all of ``view`` at ``offset``; an OSError is left to :func:`ensconce.files.writing_aside`.

    The kernel is told that nobody will look at these pages soon, which on Linux makes it start writing them out at
    once. So the disk works while the processor encrypts, and the fsync at the end finds nothing left to wait for.
    """
    start, length = offset, len(view)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
    with contextlib.suppress(OSError):  # Advice only: some file systems (and Gramine) do not know it.
        os.posix_fadvise(handle, start, length, os.POSIX_FADV_DONTNEED)


def check_output(source: Path, target: Path) -> None:
    """Refuse a target that cannot be meant, before any work is done.

    Raises:
        InputError: ``encfile.output``: it is the source itself, a directory, a device or a pipe.
    """
    try:
        found = target.stat()
    except OSError:
        return  # It does not exist yet; if its folder does not either, writing says so.
    if source.exists() and source.samefile(target):
        problem = "input and output are the same file"
    elif stat.S_ISDIR(found.st_mode):
        problem = f"the output {shown(target)} is a directory, but the input is a file"
    elif not stat.S_ISREG(found.st_mode):
        problem = f"the output {shown(target)} is not a regular file"
    else:
        return
    raise InputError("encfile.output", problem, remedy="choose another output")
