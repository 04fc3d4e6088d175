"""Where the plaintext of a version comes from when it is sealed: a folder, or the memory that it was opened into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ensconce.encfile import Fingerprint, encrypt_file
from ensconce.errors import InputError
from ensconce.models.layout import ScannedFile, scan

__all__ = ["FolderSource", "MemorySource", "Progress", "Source", "copy_tree"]

Progress = Callable[[int], None]
"""Is told the number of further bytes of plaintext that are done."""


class Source(Protocol):
    """A version in the clear."""

    @property
    def files(self) -> tuple[ScannedFile, ...]:
        """Its files, sorted by path."""

    def encrypt(self, path: str, target: Path, key: bytes, embedded_path: str, progress: Progress) -> Fingerprint:
        """Encrypt one of its files to ``target``. Raises as :func:`ensconce.encfile.encrypt_file`."""

    def same(self, path: str, plain: bytearray) -> bool:
        """Whether one of its files is exactly ``plain``; an OSError when it cannot be read."""

    def read(self, path: str, limit: int) -> bytes:
        """The first ``limit`` bytes of one of its files, for what is small. Raises an OSError likewise."""


class FolderSource:
    """A folder; nothing may write to it meanwhile.

    Args:
        folder: the version's folder.

    Raises:
        InputError: ``model.layout``, ``model.read``: it is not one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = scan(folder, InputError)

    def encrypt(self, path: str, target: Path, key: bytes, embedded_path: str, progress: Progress) -> Fingerprint:
        """As :meth:`Source.encrypt`."""
        source = self._folder / path
        return encrypt_file(source, target, key, embedded_path=embedded_path, progress=progress, follow=False)

    def same(self, path: str, plain: bytearray) -> bool:
        """As :meth:`Source.same`."""
        with (self._folder / path).open("rb") as file, memoryview(plain) as view:
            at = 0
            while chunk := file.read(1 << 20):
                if view[at : at + len(chunk)] != chunk:
                    return False
                at += len(chunk)
        return at == len(plain)

    def read(self, path: str, limit: int) -> bytes:
        """As :meth:`Source.read`."""
        with (self._folder / path).open("rb") as file:
            return file.read(limit)


class MemorySource:
    """Files in memory, which never touch a disk; one at a time is copied into a file without a name (memfd_create(2)).

    Args:
        content: plaintext by path, as :func:`ensconce.models.load.open_sealed` returns it.
    """

    def __init__(self, content: Mapping[str, bytearray | memoryview]) -> None:
        self._content = content
        self.files = tuple(ScannedFile(path, len(content[path])) for path in sorted(content))

    def encrypt(self, path: str, target: Path, key: bytes, embedded_path: str, progress: Progress) -> Fingerprint:
        """As :meth:`Source.encrypt`."""
        handle = os.memfd_create("ensconce", os.MFD_CLOEXEC)
        try:
            with memoryview(self._content[path]) as view:
                at = 0
                while at < len(view):
                    at += os.write(handle, view[at:])
            source = Path(f"/proc/self/fd/{handle}")
            return encrypt_file(source, target, key, embedded_path=embedded_path, progress=progress)
        finally:
            os.close(handle)

    def same(self, path: str, plain: bytearray) -> bool:
        """As :meth:`Source.same`."""
        return self._content[path] == plain

    def read(self, path: str, limit: int) -> bytes:
        """As :meth:`Source.read`."""
        return bytes(self._content[path][:limit])


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files of a folder, as :func:`scan` finds them, into another.

    Raises:
        InputError: ``model.layout``, ``model.read``: it holds what no version may, or cannot be read.
    """
    for file in scan(source, InputError):
        copy = target / file.path
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file.path, copy, follow_symlinks=False)
        except OSError as error:
            raise InputError(
                "model.read",
                f"cannot copy {source / file.path}: {error.strerror}",
                remedy="check permissions and space",
            ) from error
