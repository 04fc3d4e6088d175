"""Reading a log as it grows: each look checks what was added since the last, and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.chain import Chain, follow
from ensconce.audit.entry import Entry
from ensconce.audit.head import parse_head
from ensconce.audit.storage import LogStorage

__all__ = ["LogReader"]


class LogReader:
    """The entries of some sort in the log in ``storage``, for whoever has the owner's public key. Threads may share it.

    Args:
        storage: where the log is.
        public_key: the owner's.
        wanted: which entries; the others are checked and forgotten.
    """

    def __init__(self, storage: LogStorage, public_key: Ed25519PublicKey, wanted: Callable[[Entry], bool]) -> None:
        self._storage = storage
        self._public_key = public_key
        self._wanted = wanted
        self._lock = threading.Lock()
        self._chain = Chain()
        self._entries: list[Entry] = []

    def entries(self) -> list[Entry]:
        """Those of the entries so far that are wanted, in order, after everything that the head covers was checked.

        A log that went back, or became another, is refused until it continues what was read.

        Raises:
            InputError: the log cannot be read.
            UnreachableError: ``state.unreachable``.
            IntegrityError: ``audit.*``: the log was changed.
        """
        new: list[Entry] = []

        def look(entry: Entry) -> None:
            if self._wanted(entry):
                new.append(entry)

        with self._lock:
            with self._storage.view() as view:
                head = parse_head(view.head, self._public_key)
                self._chain = follow(view, self._chain, head, self._public_key, look)
            self._entries += new
            return list(self._entries)
