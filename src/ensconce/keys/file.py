"""The keystore in a folder of the owner's own disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from ensconce.keys.place import FolderPlace
from ensconce.keys.sealed_keystore import SealedKeystore, unix_time
from ensconce.keys.unlock import Unlock

__all__ = ["FileKeystore"]


class FileKeystore(SealedKeystore):
    """A :class:`SealedKeystore` in a :class:`~ensconce.keys.place.FolderPlace`."""

    @classmethod
    def create(
        cls, folder: Path, unlock: Unlock, *, deployment: str = "ensconce", now: Callable[[], int] = unix_time
    ) -> Self:
        """Make an empty keystore; ``folder`` is made (0700) when it is missing, its parent must exist.

        Raises:
            InputError: ``keystore.exists``; ``keystore.permissions``; ``keystore.passphrase`` (too short); a key file
                that cannot be used; a folder that cannot be written.
        """
        return cls.start(FolderPlace(folder), unlock, deployment=deployment, now=now)

    @classmethod
    def open(cls, folder: Path, unlock: Unlock, *, now: Callable[[], int] = unix_time) -> Self:
        """Open a keystore and check all of it. Raises as :meth:`SealedKeystore.unseal`."""
        return cls.unseal(FolderPlace(folder), unlock, now=now)
