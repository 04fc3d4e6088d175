"""The Merkle tree of RFC 9162 section 2.1 over SHA-256: roots, inclusion proofs, consistency proofs.

Leaves are given as their hashes (``leaf_hash``, 32 bytes each). For the root of a million entries :class:`Frontier`
keeps some 20 hashes; for proofs about them :class:`Tree` keeps all, 64 MB.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from ensconce.errors import InputError, IntegrityError

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "Tree",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first, one per bit of ``size``."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        return Frontier(self.size, self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add the next leaf by its hash."""
        node, height = leaf, self.size
        while height & 1:
            node = node_hash(self._peaks.pop(), node)
            height >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """MTH of all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = node_hash(peak, node)
        return node


class Tree:
    """All hashes of a growing tree, some 64 bytes a leaf, so that a proof takes some log2(size) of them and no more."""

    def __init__(self) -> None:
        # Level k holds the roots of the complete subtrees of 2**k leaves, 32 bytes each, from the left.
        self._levels = [bytearray()]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // 32

    def append(self, leaf: bytes) -> None:
        """Add the next leaf by its hash."""
        node, level = leaf, 0
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            row = self._levels[level]
            row += node
            if len(row) // 32 & 1:
                return
            node = node_hash(bytes(row[-64:-32]), node)
            level += 1

    def root(self, size: int) -> bytes:
        """Root of the first ``size`` leaves.

        Raises:
            InputError: ``merkle.range``: there are fewer.
        """
        if not 0 <= size <= self.size:
            raise _out_of_range(f"the first {size} of {self.size}")
        return self._subtree(0, size) if size else EMPTY_ROOT

    def leaves(self, size: int) -> list[bytes]:
        """The hashes of the first ``size`` leaves, or of all when there are fewer."""
        row = bytes(self._levels[0][: size * 32])
        return [row[at : at + 32] for at in range(0, len(row), 32)]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """PATH of section 2.1.3.1 for the first ``size`` leaves: the hashes from a leaf to their root, lowest first.

        Raises:
            InputError: ``merkle.range``: there is no such leaf.
        """
        if not 0 <= index < size <= self.size:
            raise _out_of_range(f"leaf {index} of the first {size} of {self.size}")
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start = middle
        return proof[::-1]

    def consistency(self, earlier: int, size: int) -> list[bytes]:
        """PROOF of section 2.1.4.1: that the first ``earlier`` leaves are a prefix of the first ``size``.

        It is empty when the two are equal.

        Raises:
            InputError: ``merkle.range``: ``earlier`` is 0 or more than ``size``, or there are fewer leaves.
        """
        if not 0 < earlier <= size <= self.size:
            raise _out_of_range(f"the first {earlier} of the first {size} of {self.size}")
        proof: list[bytes] = []
        start, end, complete = 0, size, True
        while earlier != end:
            middle = start + _split(end - start)
            if earlier <= middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start, complete = middle, False
        if not complete:
            proof.append(self._subtree(start, end))
        return proof[::-1]

    def _subtree(self, start: int, end: int) -> bytes:
        # start is a multiple of the largest power of two in end - start: RFC 9162 splits in no other way.
        count = end - start
        if count & (count - 1) == 0:
            at = (start // count) * 32
            return bytes(self._levels[count.bit_length() - 1][at : at + 32])
        middle = start + _split(count)
        return node_hash(self._subtree(start, middle), self._subtree(middle, end))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` (its hash) is number ``index`` of the ``size`` leaves under ``root`` (section 2.1.3.2).

    Raises:
        IntegrityError: ``merkle.inclusion``.
    """
    problem = f"the proof does not lead from entry {index} to the root of the {size} entries"
    if not 0 <= index < size:
        raise _bad_proof("merkle.inclusion", problem)
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise _bad_proof("merkle.inclusion", problem)
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            node = node_hash(node, sibling)
        fn >>= 1
        sn >>= 1
    if sn != 0 or not hmac.compare_digest(node, root):
        raise _bad_proof("merkle.inclusion", problem)


def verify_consistency(earlier: int, size: int, proof: Sequence[bytes], earlier_root: bytes, root: bytes) -> None:
    """Check that the tree of ``earlier`` leaves is a prefix of the tree of ``size`` leaves (section 2.1.4.2).

    Args:
        earlier: size of the earlier tree, at least 1.
        size: size of the later tree, at least ``earlier``.
        proof: what :meth:`Tree.consistency` gave.
        earlier_root: root of the earlier tree.
        root: root of the later tree.

    Raises:
        IntegrityError: ``merkle.consistency``.
    """
    problem = f"the log of {size} entries is not shown to be a continuation of the log of {earlier} entries"
    if not 0 < earlier <= size or (not proof) != (earlier == size):
        raise _bad_proof("merkle.consistency", problem)
    if earlier == size:
        if not hmac.compare_digest(earlier_root, root):
            raise _bad_proof("merkle.consistency", problem)
        return
    path = list(proof)
    if earlier & (earlier - 1) == 0:
        path.insert(0, earlier_root)
    fn, sn = earlier - 1, size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = path[0]
    for node in path[1:]:
        if sn == 0:
            raise _bad_proof("merkle.consistency", problem)
        if fn & 1 or fn == sn:
            fr, sr = node_hash(node, fr), node_hash(node, sr)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, node)
        fn >>= 1
        sn >>= 1
    if sn != 0 or not (hmac.compare_digest(fr, earlier_root) and hmac.compare_digest(sr, root)):
        raise _bad_proof("merkle.consistency", problem)


def _split(count: int) -> int:
    """The largest power of two that is smaller than ``count`` (count > 1)."""
    return 1 << (count - 1).bit_length() - 1


def _out_of_range(found: str) -> InputError:
    return InputError("merkle.range", "the log has no such entry", found=found, remedy="ask for one that it has")


def _bad_proof(check: str, problem: str) -> IntegrityError:
    return IntegrityError(
        check, problem, rule="RFC 9162 section 2.1", remedy="do not believe this log; keep the heads and ask its owner"
    )
