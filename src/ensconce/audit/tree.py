"""The Merkle tree of a stored log, kept up with it: heads and proofs without reading the log again each time."""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.entry import damaged
from ensconce.audit.head import Head, head_put_back, parse_head
from ensconce.audit.merkle import Tree, leaf_hash
from ensconce.audit.proofs import ConsistencyProof
from ensconce.audit.storage import LogStorage, LogView, Position

__all__ = ["LogTree"]


class LogTree:
    """Proofs about the log in ``storage``, for whoever has the owner's public key. Threads may share it.

    It reads each line once, and keeps hashes only. The root of all that it has read is compared with the signed head's:
    what does not lead to that root is not the log, whichever line of it was changed.
    """

    def __init__(self, storage: LogStorage, public_key: Ed25519PublicKey) -> None:
        self._storage = storage
        self._public_key = public_key
        self._lock = threading.Lock()
        self._tree = Tree()
        self._offset = 0

    def head(self) -> Head:
        """The head, after everything that it covers has been read.

        Raises:
            InputError: the log cannot be read.
            UnreachableError: ``state.unreachable``.
            IntegrityError: ``audit.*``: the log was changed.
        """
        with self._lock:
            return self._catch_up()

    def root(self, size: int) -> bytes:
        """Root of the first ``size`` entries. Raises as :meth:`consistency`."""
        with self._lock:
            self._reach(size)
            return self._tree.root(size)

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """The proof that the log of ``first`` entries is the beginning of the log of ``second``.

        Raises:
            InputError: ``merkle.range``; or as :meth:`head`.
            UnreachableError: ``state.unreachable``.
            IntegrityError: as :meth:`head`.
        """
        with self._lock:
            self._reach(second)
            return ConsistencyProof(first, second, tuple(self._tree.consistency(first, second)))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The path from entry ``index`` to the root of the first ``size``. Raises as :meth:`consistency`."""
        with self._lock:
            self._reach(size)
            return self._tree.inclusion(index, size)

    def leaves(self, size: int) -> list[bytes]:
        """The leaf hashes of the first ``size`` entries. Raises as :meth:`consistency`."""
        with self._lock:
            self._reach(size)
            return self._tree.leaves(size)

    def _reach(self, size: int) -> None:
        if size > self._tree.size:
            self._catch_up()

    def _catch_up(self) -> Head:
        with self._storage.view() as view:
            head = parse_head(view.head, self._public_key)
            known = self._tree.size
            if head.size < known:
                raise head_put_back(head.size, known)
            try:
                self._read(view, head.size)
                if self._tree.root(head.size) != head.root:
                    raise damaged("audit.root", max(head.size - 1, 0), "or one before it is not what the head covers")
            except BaseException:
                # What was read is not the log: begin anew next time, in case that the log has been restored by then.
                self._tree, self._offset = Tree(), 0
                raise
        return head

    def _read(self, view: LogView, size: int) -> None:
        lines = view.lines(Position(self._tree.size, self._offset))
        while self._tree.size < size:
            line = next(lines, b"")
            if not line.endswith(b"\n"):
                raise damaged("audit.truncated", self._tree.size, "is missing or cut short", f"{size} in the head")
            self._tree.append(leaf_hash(line[:-1]))
            self._offset += len(line)
