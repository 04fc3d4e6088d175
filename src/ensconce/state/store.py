"""What every store promises. A store keeps bytes; what they mean and whether to believe them is their reader's matter.

Nothing in a store is trusted by being there: the log is signed entry by entry, the keystore is sealed, a policy carries
its owners' signatures.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["MAX_DOCUMENT", "Slot", "Store"]

MAX_DOCUMENT = 64 * 1024 * 1024
"""Longest document in bytes."""


class Slot(Protocol):
    """One document while nobody else, on this machine or another, can replace it."""

    def read(self) -> bytes | None:
        """The document now, None when there is none yet."""

    def write(self, data: bytes) -> None:
        """Replace the document whole: after any crash it is the old one or the new one. Durable when this returns.

        Raises:
            InputError: ``state.write``: it cannot be written, or is longer than :data:`MAX_DOCUMENT`.
            UnreachableError: ``state.unreachable``.
        """


class Store(Protocol):
    """Documents by name, shared by threads, processes and (a database) machines."""

    def read(self, name: str) -> bytes | None:
        """The document of this name as it was last written, None when there is none. Needs no lock.

        Args:
            name: ``[a-z0-9][a-z0-9.-]*``, joined by ``/``; at most 100 characters.

        Raises:
            InputError: ``state.read``: it cannot be read.
            UnreachableError: ``state.unreachable``: the database cannot be reached.
        """

    def locked(self, name: str) -> AbstractContextManager[Slot]:
        """Hold one document alone, to read it, decide, and write it; waits for whoever holds it.

        Raises:
            InputError: ``state.lock``: the folder cannot be written.
            UnreachableError: ``state.unreachable``.
        """
