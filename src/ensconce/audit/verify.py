"""Reading a log: with the owner's public key to judge it, or without to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.chain import Chain, follow, read_tail
from ensconce.audit.entry import MAX_LINE, Entry, damaged
from ensconce.audit.folder import storage_at
from ensconce.audit.head import Head, parse_head
from ensconce.audit.storage import LogStorage
from ensconce.errors import IntegrityError

__all__ = ["read_entries", "verify_log"]


def verify_log(
    where: Path | LogStorage, public_key: Ed25519PublicKey, look: Callable[[Entry], object] = lambda _: None
) -> Head:
    """Check every entry and the head; the log may be in use meanwhile.

    A whole log put back to an earlier state is a valid log of that time. Whoever kept a later head notices it: by its
    size, or by a consistency proof (:mod:`ensconce.audit.proofs`).

    Args:
        where: the log's folder, or where else it is kept.
        public_key: the owner's.
        look: called with each entry as it is read; only when this returns, it is the owner's.

    Returns:
        The head, which now stands for the whole log.

    Raises:
        InputError: ``audit.missing``, ``audit.read``.
        IntegrityError: ``audit.*``, naming the first entry that was changed, dropped, inserted, duplicated or
            reordered; ``audit.tail`` when entries, or parts of them, follow the head: in a folder the writer may have
            been stopped at that moment, and will put it right when it starts again.
    """
    with storage_at(where).view() as view:
        head = parse_head(view.head, public_key)
        chain = follow(view, Chain(), head, public_key, look)
        tail = read_tail(view, chain, public_key)
    if tail.entries or tail.torn:
        raise IntegrityError(
            "audit.tail",
            f"entry {head.size} of the audit log was {'written, and then no head' if tail.entries else 'cut off'} "
            f"when its writer was stopped; the {head.size} before it are intact",
            rule="the head covers every entry",
            remedy="start the writer again (ensconce provision serve): it adopts whole entries and removes the rest",
        )
    return head


def read_entries(where: Path | LogStorage) -> Iterator[Entry]:
    """The entries in order, checked for number, hash and chain, without the owner's key; :func:`verify_log` judges.

    Raises:
        InputError: ``audit.missing``, ``audit.read``.
        IntegrityError: ``audit.*``, naming the entry, when the iteration reaches it.
    """
    with storage_at(where).view() as view:
        chain = Chain()
        for line in view.lines(chain.position):
            if len(line) <= MAX_LINE and not line.endswith(b"\n"):
                raise damaged("audit.truncated", chain.size, "is cut short", f"{chain.size} whole entries")
            yield chain.read(line)
