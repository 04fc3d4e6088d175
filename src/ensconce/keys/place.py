"""Where a sealed keystore lies: in a folder of the owner's machine, or as a document of a store that servers share."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ensconce.errors import InputError
from ensconce.files import holding, read_bounded, write_aside
from ensconce.keys.sealed import MAX_FILE
from ensconce.state.store import Slot, Store

__all__ = ["FolderPlace", "Place", "StorePlace"]

_FILE = "keystore.sealed"
_LOCK = "lock"
_DOCUMENT = "keystore"


class Place(Protocol):
    """One sealed keystore, replaced whole."""

    def read(self) -> bytes | None:
        """The bytes as last written, None when there is no keystore; needs no lock. Raises EnsconceErrors."""

    def locked(self) -> AbstractContextManager[Slot]:
        """Hold it alone, to read it, decide, and write it. Raises EnsconceErrors."""


@dataclass(frozen=True)
class FolderPlace:
    """The folder (0700) holds ``keystore.sealed`` (0600) and ``lock``.

    A writer holds an exclusive flock(2) on ``lock``; a reader needs none, because the file is only ever replaced by a
    rename.
    """

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def read(self) -> bytes | None:
        """The file's bytes, None when it is missing.

        Raises:
            InputError: ``keystore.permissions``: others can read or write it; ``file.*``: it cannot be read.
        """
        path = self.folder / _FILE
        if not path.exists():
            return None
        _check_private(self.folder, "0700")
        _check_private(path, "0600")
        return read_bounded(path, MAX_FILE)

    def write(self, data: bytes) -> None:
        """Replace the file, by its only holder."""
        # What a killed writer left aside may still hold keys that were retired since.
        for left in self.folder.glob(f".{_FILE}.*.part"):
            left.unlink(missing_ok=True)
        write_aside(self.folder / _FILE, data, mode=0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Slot]:
        """Hold the folder alone; it is made where it is missing, its parent must exist.

        Raises:
            InputError: ``keystore.create``, ``keystore.permissions``, ``keystore.lock``.
        """
        self._make()
        with holding(self.folder / _LOCK, "keystore.lock", "the keystore"):
            yield self

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InputError(
                "keystore.create",
                f"cannot make the folder {self.folder}: {error.strerror}",
                remedy="check its parent folder",
            ) from error
        _check_private(self.folder, "0700")


@dataclass(frozen=True)
class StorePlace:
    """The document ``keystore`` of a store."""

    store: Store

    def __str__(self) -> str:
        return "the deployment's store"

    def read(self) -> bytes | None:
        """The document. Raises as :meth:`Store.read`."""
        return self.store.read(_DOCUMENT)

    def locked(self) -> AbstractContextManager[Slot]:
        """Hold the document alone. Raises as :meth:`Store.locked`."""
        return self.store.locked(_DOCUMENT)


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
