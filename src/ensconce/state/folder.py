"""A store in a folder of this machine: one file for each document, one lock file beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ensconce.errors import InputError
from ensconce.files import holding, sync_folder, write_aside
from ensconce.state.store import MAX_DOCUMENT, check_name, check_size

__all__ = ["FolderStore"]


class FolderStore:
    """Documents in one folder, for the threads and processes of one machine; the protocol is :class:`Store`.

    A document ``a/b`` is the file ``a_b`` (no name has an underscore), mode 0600; its lock is ``.a_b.lock``, held with
    ``flock``. The folder is made with mode 0700 when something is first locked; its parent must exist.

    Args:
        folder: where the documents are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The document as it was last written, None when there is none yet.

        Raises:
            InputError: ``state.name``; ``state.read``: it cannot be read, or is longer than ``MAX_DOCUMENT``.
        """
        path = self._folder / _file_name(name)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(handle, "rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                "state.read", f"cannot read {path}: {error.strerror}", remedy="check the permissions"
            ) from error
        check_size("state.read", name, data)
        return data

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[_FileSlot]:
        """Hold one document alone; waits for whoever holds it. Not re-entrant.

        Raises:
            InputError: ``state.name``; ``state.lock``: the folder cannot be written.
        """
        file_name = _file_name(name)
        try:
            self._make()
        except OSError as error:
            raise InputError(
                "state.lock",
                f"cannot make the folder {self._folder}: {error.strerror}",
                remedy="check its parent folder",
            ) from error
        with holding(self._folder / f".{file_name}.lock", "state.lock", name):
            yield _FileSlot(self, self._folder / file_name, name)

    def _make(self) -> None:
        if not self._folder.is_dir():
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir(mode=0o700)
                sync_folder(self._folder.parent)


class _FileSlot:
    def __init__(self, store: FolderStore, path: Path, name: str) -> None:
        self._store = store
        self._path = path
        self._name = name

    def read(self) -> bytes | None:
        return self._store.read(self._name)

    def write(self, data: bytes) -> None:
        check_size("state.write", self._name, data)
        self._clear()
        try:
            write_aside(self._path, data, mode=0o600)
        except InputError as error:
            raise InputError("state.write", error.problem, remedy=error.remedy) from error

    def _clear(self) -> None:
        """Remove what a holder that was killed had not written to its end."""
        # Exactly so many characters: a document named like this one and more has files of its own.
        for left in self._path.parent.glob(f".{self._path.name}.{'[a-z0-9_]' * 8}.part"):
            with contextlib.suppress(OSError):
                left.unlink()


def _file_name(name: str) -> str:
    check_name(name)
    return name.replace("/", "_")
