"""Following the chain: from a known state to a signed head, and what may come after a head.

The writer and the verifiers share this, so that what one accepts the other accepts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.entry import GENESIS, MAX_LINE, Entry, damaged, parse_entry, signature_is_good
from ensconce.audit.head import Head
from ensconce.audit.merkle import Frontier
from ensconce.errors import IntegrityError

__all__ = ["Chain", "Tail", "follow", "read_tail"]


@dataclass
class Chain:
    """Where a pass over the log stands: everything that the next entry depends on.

    Attributes:
        frontier: the Merkle tree of the entries so far; its ``size`` is their number.
        last: hash of the last entry.
        offset: where the next line begins in the file, in bytes.
    """

    frontier: Frontier = field(default_factory=Frontier)
    last: bytes = GENESIS
    offset: int = 0

    @property
    def size(self) -> int:
        """Number of entries so far."""
        return self.frontier.size

    def copy(self) -> Chain:
        """An independent copy."""
        return Chain(self.frontier.copy(), self.last, self.offset)

    def read(self, line: bytes) -> Entry:
        """Take the next line of the file.

        Raises:
            IntegrityError: ``audit.entry``, ``.sequence``, ``.hash``, ``.chain``: it is not the next entry.
        """
        entry = parse_entry(line, self.size)
        if entry.previous != self.last:
            raise damaged("audit.chain", self.size, "does not continue from the entry before it", entry.previous.hex())
        self.extend(entry, len(line))
        return entry

    def extend(self, entry: Entry, length: int) -> None:
        """Take an entry of ``length`` bytes that is known to be the next one."""
        self.frontier.append(entry.leaf_hash())
        self.last = entry.hash
        self.offset += length


@dataclass(frozen=True)
class Tail:
    """What follows the last entry that the head covers.

    Attributes:
        entry: an entry that the writer signed and that no head covers yet, or None.
        torn: bytes of a line that was not written to its end; 0 when there is none.
    """

    entry: Entry | None
    torn: int


def follow(file: BinaryIO, start: Chain, head: Head, end: int, key: Ed25519PublicKey) -> Chain:
    """Go from ``start`` to the state that ``head`` was signed over.

    One pass checks numbers, hashes and the chain, and at its end the root; as each line is in the root, that is enough
    to know that all is well. Only when something is wrong, a second pass checks each entry's signature, so that the
    error names the first entry that the writer did not write, even when all hashes after it were computed anew.

    Args:
        file: the log.
        start: a state that is known to be good; it is not changed.
        head: an authentic head.
        end: how much of the file to look at, in bytes.
        key: the writer's public key.

    Raises:
        IntegrityError: ``audit.*``, naming the entry.
    """
    if head.size < start.size:
        raise IntegrityError(
            "audit.head",
            "the head of the audit log was put back to an earlier one",
            found=f"{head.size} entries, and there were {start.size}",
            rule="a log only grows",
            remedy="restore the folder or compare with an exported copy",
        )
    try:
        chain = _walk(file, start.copy(), head, end, None)
        if (chain.frontier.root(), chain.last) != (head.root, head.last):
            raise damaged("audit.root", max(head.size - 1, 0), "or one before it is not what the head was signed over")
    except IntegrityError:
        _walk(file, start.copy(), head, end, key)
        raise
    return chain


def read_tail(file: BinaryIO, chain: Chain, end: int, key: Ed25519PublicKey) -> Tail:
    """Judge what follows the entries that the head covers; ``chain`` is the state at the head and is not changed.

    A writer that is stopped between an entry and its head leaves one whole entry, or part of one; nothing else may
    follow.

    Raises:
        IntegrityError: ``audit.tail`` (more than one line), or ``audit.*`` for an entry that the writer did not write.
    """
    file.seek(chain.offset)
    tail = file.read(min(end - chain.offset, MAX_LINE + 1))
    if not tail:
        return Tail(None, 0)
    if len(tail) > MAX_LINE or b"\n" in tail[:-1]:
        raise damaged("audit.tail", chain.size, "and what follows it are not covered by the head", ascii(tail[:60]))
    try:
        entry = chain.copy().read(tail)
    except IntegrityError as error:
        if error.check == "audit.entry":
            return Tail(None, len(tail))
        raise
    _check_signature(entry, key)
    return Tail(entry, 0)


def _walk(file: BinaryIO, chain: Chain, head: Head, end: int, key: Ed25519PublicKey | None) -> Chain:
    file.seek(chain.offset)
    while chain.size < head.size:
        line = file.readline(min(MAX_LINE + 1, end - chain.offset))
        if not line.endswith(b"\n") and len(line) <= MAX_LINE:
            raise damaged(
                "audit.truncated",
                chain.size,
                "is cut short" if line else "is missing: the log ends before it",
                f"{chain.size} whole entries of {head.size}",
            )
        entry = chain.read(line)
        if key is not None:
            _check_signature(entry, key)
    return chain


def _check_signature(entry: Entry, key: Ed25519PublicKey) -> None:
    if not signature_is_good(entry, key):
        raise damaged("audit.signature", entry.seq, "was not written by the log's owner", entry.hash.hex())
