"""What every store promises. A store keeps bytes; what they mean and whether to believe them is their reader's matter.

Nothing in a store is trusted by being there: the log is signed entry by entry, the keystore is sealed, a policy carries
its owners' signatures.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Protocol

from ensconce.errors import InputError

__all__ = ["MAX_DOCUMENT", "Slot", "Store", "check_name", "check_size"]

MAX_DOCUMENT = 64 * 1024 * 1024
"""Longest document in bytes."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(?:/[a-z0-9][a-z0-9.-]*)*")
_MAX_NAME = 100


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


def check_name(name: str) -> None:
    """Refuse what is not a document's name.

    Raises:
        InputError: ``state.name``.
    """
    if len(name) > _MAX_NAME or _NAME.fullmatch(name) is None:
        raise InputError(
            "state.name",
            "this is not a document's name",
            found=ascii(name[: _MAX_NAME + 1]),
            rule=f"{_NAME.pattern}, at most {_MAX_NAME} characters",
        )


def check_size(check: str, name: str, data: bytes) -> None:
    """Refuse a document that is longer than :data:`MAX_DOCUMENT`.

    Raises:
        InputError: ``check``.
    """
    if len(data) > MAX_DOCUMENT:
        raise InputError(
            check,
            f"the document {name} is too long",
            found=f"more than {MAX_DOCUMENT} bytes",
            rule=f"at most {MAX_DOCUMENT} bytes",
        )
