"""Remembers every file that a folder ever held: the kernel tells of each new one, and a hard link keeps it."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from ensconce.errors import EnsconceError

__all__ = ["Witness"]

_EVENT = struct.Struct("iIII")
_CREATE, _MOVED_FROM, _MOVED_TO, _ONLYDIR, _DONT_FOLLOW = 0x100, 0x40, 0x80, 0x1000000, 0x2000000
_OVERFLOW = 0x4000
_CLOEXEC = 0o2000000


class Witness:
    """Watches ``folder`` and everything below it with inotify(7), and links every new file into ``archive``.

    A link keeps the contents after the file is removed or replaced. A file that is gone before it could be linked is
    counted in ``missed``: what it held is unknown.

    Args:
        folder: the folder to watch; links are not followed.
        archive: a new folder on the same file system, outside ``folder``.
    """

    def __init__(self, folder: Path, archive: Path) -> None:
        archive.mkdir()
        self._folder = folder
        self._archive = archive
        self._folders: dict[int, Path] = {}
        self._seen: set[int] = set()
        self._wake_read, self._wake_write = os.pipe()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(_CLOEXEC)
        if self._inotify < 0:
            raise EnsconceError("demo.witness", "the kernel watches no more folders for this user", found="inotify")
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._gone: set[Path] = set()
        self._lost: list[str] = []

    @property
    def missed(self) -> list[str]:
        """Files that were gone before they could be kept, and were not renamed either."""
        return self._lost + sorted(str(path.relative_to(self._folder)) for path in self._gone)

    @property
    def files(self) -> int:
        """How many files it has kept."""
        return len(self._seen)

    def __enter__(self) -> Self:
        self._enter(self._folder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._wake_write)
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._inotify)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._inotify, self._wake_read], [], [])
            if self._inotify not in readable:
                return
            data = os.read(self._inotify, 1 << 16)
            offset = 0
            while offset < len(data):
                watch, mask, _, size = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + size
                if mask & _OVERFLOW:
                    self._lost.append("(more events than the kernel could keep)")
                elif watch in self._folders:
                    name = data[offset - size : offset].rstrip(b"\0")
                    path = self._folders[watch] / os.fsdecode(name)
                    if mask & _MOVED_FROM:
                        # Under its new name it has an event of its own.
                        self._gone.discard(path)
                    else:
                        self._keep(path)

    def _enter(self, folder: Path) -> None:
        """Watch a folder first and look into it then, so that nothing falls between the two."""
        mask = _CREATE | _MOVED_FROM | _MOVED_TO | _ONLYDIR | _DONT_FOLLOW
        watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), mask)
        if watch < 0:
            self._lost.append(f"{folder}: {os.strerror(ctypes.get_errno())}")
            return
        self._folders[watch] = folder
        for entry in folder.iterdir():
            self._keep(entry)

    def _keep(self, path: Path) -> None:
        try:
            if path.is_symlink():
                return
            if path.is_dir():
                self._enter(path)
                return
            if not path.is_file():
                path.lstat()
                return
            inode = path.stat().st_ino
            if inode not in self._seen:
                os.link(path, self._archive / f"{inode}-{path.name}", follow_symlinks=False)
                self._seen.add(inode)
        except OSError:
            self._gone.add(path)
