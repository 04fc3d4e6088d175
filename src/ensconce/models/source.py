"""Where the plaintext of a version comes from when it is sealed: a folder, or the memory that it was opened into."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ensconce.encfile import Fingerprint, encrypt_file
from ensconce.errors import InputError
from ensconce.models.layout import ScannedFile, scan

__all__ = ["FolderSource", "MemorySource", "Progress", "Source"]

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


class MemorySource:
    """Files in memory, which never touch a disk; one at a time is copied into a file without a name (memfd_create(2)).

    Args:
        content: plaintext by path, as :func:`ensconce.models.load.open_sealed` returns it.
    """

    def __init__(self, content: Mapping[str, bytearray]) -> None:
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
