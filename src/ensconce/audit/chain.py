"""Following the chain: from a known state to a signed head, and what may come after a head.

The writer and the verifiers share this, so that what one accepts the other accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.entry import GENESIS, MAX_LINE, Entry, damaged, parse_entry, signature_is_good
from ensconce.audit.head import Head, head_put_back
from ensconce.audit.merkle import Frontier, leaf_hash
from ensconce.audit.storage import LogView, Position
from ensconce.errors import IntegrityError

__all__ = ["MAX_BATCH", "Chain", "Tail", "follow", "read_tail"]

MAX_BATCH = 64
"""Most entries that a writer adds under one head, and so the most that a crash leaves without one; together they are at
most ``MAX_LINE`` bytes long."""


@dataclass
class Chain:
    """Where a pass over the log stands: everything that the next entry depends on.

    Attributes:
        frontier: the Merkle tree of the entries so far; its ``size`` is their number.
        last: hash of the last entry.
        offset: how long the lines so far are together, in bytes.
    """

    frontier: Frontier = field(default_factory=Frontier)
    last: bytes = GENESIS
    offset: int = 0

    @property
    def size(self) -> int:
        """Number of entries so far."""
        return self.frontier.size

    @property
    def position(self) -> Position:
        """The place after the last entry."""
        return Position(self.size, self.offset)

    def copy(self) -> Chain:
        """An independent copy."""
        return Chain(self.frontier.copy(), self.last, self.offset)

    def read(self, line: bytes) -> Entry:
        """Take the next line.

        Raises:
            IntegrityError: ``audit.entry``, ``.sequence``, ``.hash``, ``.chain``: it is not the next entry.
        """
        entry = parse_entry(line, self.size)
        if entry.previous != self.last:
            raise damaged("audit.chain", self.size, "does not continue from the entry before it", entry.previous.hex())
        self.extend(entry, line)
        return entry

    def extend(self, entry: Entry, line: bytes) -> None:
        """Take an entry, and its line, that is known to be the next one."""
        self.frontier.append(leaf_hash(line[:-1]))
        self.last = entry.hash
        self.offset += len(line)


@dataclass(frozen=True)
class Tail:
    """What follows the last entry that the head covers.

    Attributes:
        entries: entries that the writer signed and that no head covers yet.
        chain: the state after them.
        torn: bytes that follow, of lines that were not written to their end; 0 when there are none.
    """

    entries: Sequence[Entry]
    chain: Chain
    torn: int


def follow(
    view: LogView, start: Chain, head: Head, key: Ed25519PublicKey, look: Callable[[Entry], object] = lambda _: None
) -> Chain:
    """Go from ``start`` to the state that ``head`` was signed over.

    One pass checks numbers, hashes and the chain, and at its end the root; as each line is in the root, that is enough
    to know that all is well. Only when something is wrong, a second pass checks each entry's signature, so that the
    error names the first entry that the writer did not write, even when all hashes after it were computed anew.

    Args:
        view: the log.
        start: a state that is known to be good; it is not changed.
        head: an authentic head.
        key: the writer's public key.
        look: called with each entry on the way, before it is known to be the writer's: only when this returns, it is.
            What is read a second time may have been exchanged in between.

    Raises:
        IntegrityError: ``audit.*``, naming the entry.
    """
    if head.size < start.size:
        raise head_put_back(head.size, start.size)
    try:
        chain = _walk(view, start.copy(), head, None, look)
        if (chain.frontier.root(), chain.last) != (head.root, head.last):
            raise damaged("audit.root", max(head.size - 1, 0), "or one before it is not what the head was signed over")
    except IntegrityError:
        _walk(view, start.copy(), head, key, lambda _: None)
        raise
    return chain


def read_tail(view: LogView, chain: Chain, key: Ed25519PublicKey) -> Tail:
    """Judge what follows the entries that the head covers; ``chain`` is the state at the head and is not changed.

    A writer that is stopped between a batch and its head leaves whole entries, and after them perhaps lines, or parts
    of lines, that did not reach the disk; nothing else may follow, and no more than a batch.

    Raises:
        IntegrityError: ``audit.tail`` (more than that), or ``audit.*`` for an entry that the writer did not write.
    """
    state, entries, torn = chain.copy(), list[Entry](), 0
    for line in view.lines(chain.position):
        length = state.offset - chain.offset + torn + len(line)
        if length > MAX_LINE or len(entries) == MAX_BATCH or not view.leaves_tail:
            raise damaged("audit.tail", chain.size, "and what follows it are not covered by the head", ascii(line[:60]))
        if not torn:
            try:
                entries.append(state.read(line))
            except IntegrityError as error:
                if error.check != "audit.entry":
                    raise
            else:
                _check_signature(entries[-1], key)
                continue
        torn += len(line)
    return Tail(entries, state, torn)


def _walk(
    view: LogView, chain: Chain, head: Head, key: Ed25519PublicKey | None, look: Callable[[Entry], object]
) -> Chain:
    lines = view.lines(chain.position)
    while chain.size < head.size:
        line = next(lines, b"")
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
        look(entry)
    return chain


def _check_signature(entry: Entry, key: Ed25519PublicKey) -> None:
    if not signature_is_good(entry, key):
        raise damaged("audit.signature", entry.seq, "was not written by the log's owner", entry.hash.hex())
