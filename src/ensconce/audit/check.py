"""What the commands ask of a log: check it whole, prove something about it, write it out."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.folder import FolderLog, storage_at
from ensconce.audit.head import Head, parse_head
from ensconce.audit.proofs import (
    MAX_PROOF,
    Continuation,
    InclusionProof,
    check_beginning,
    check_continuation,
    parse_proof,
)
from ensconce.audit.public import read_public_log, to_public_bytes
from ensconce.audit.storage import HEAD, LOG, LogStorage, Position
from ensconce.audit.tree import LogTree
from ensconce.audit.verify import read_entries, verify_log
from ensconce.errors import InputError
from ensconce.files import read_bounded, write_aside, writing_aside

__all__ = [
    "check_log",
    "check_proof",
    "check_public_log",
    "export_full",
    "export_public",
    "prove_continuation",
    "prove_entry",
]


def check_log(where: Path | LogStorage, key: Ed25519PublicKey, earlier: Head | None) -> Head:
    """Check every entry, and that the log continues ``earlier``.

    Raises:
        InputError: it cannot be read.
        UnreachableError: ``state.unreachable``.
        IntegrityError: as :func:`verify_log`; ``audit.rollback``, ``audit.fork``.
    """
    head = verify_log(where, key)
    if earlier is not None:
        check_beginning(earlier, head.size, LogTree(storage_at(where), key).root)
    return head


def check_public_log(path: Path, key: Ed25519PublicKey, earlier: Head | None) -> Head:
    """Check an exported file of hashes, and that its log continues ``earlier``.

    Raises:
        InputError: ``file.*``.
        IntegrityError: as :func:`read_public_log`; ``audit.rollback``, ``audit.fork``.
    """
    log = read_public_log(path, key)
    if earlier is not None:
        check_beginning(earlier, log.head.size, log.tree.root)
    return log.head


def check_proof(path: Path, key: Ed25519PublicKey, earlier: Head | None) -> InclusionProof | Continuation:
    """Check a proof file.

    Args:
        path: the file.
        key: the owner's public key.
        earlier: the head that a continuation continues; an inclusion proof takes none.

    Raises:
        InputError: ``file.*``, ``audit.proof``; ``audit.since``: a head is missing, or there is one too many.
        IntegrityError: as :func:`parse_proof` and :func:`check_continuation`.
    """
    proof = parse_proof(read_bounded(path, MAX_PROOF), key)
    if isinstance(proof, Continuation):
        if earlier is None:
            raise InputError(
                "audit.since",
                f"the proof says that the log continues one of {proof.consistency.first} entries: which one?",
                remedy="name the head that you kept with --since",
            )
        check_continuation(earlier, proof.head, proof.consistency)
    elif earlier is not None:
        raise InputError(
            "audit.since", "the proof of an entry says nothing about an earlier head", remedy="leave out --since"
        )
    return proof


def prove_entry(storage: LogStorage, key: Ed25519PublicKey, index: int) -> InclusionProof:
    """The proof that entry ``index`` is in the log as it is now.

    Raises:
        InputError: ``merkle.range``: there is no such entry.
        UnreachableError: ``state.unreachable``.
        IntegrityError: the log was changed.
    """
    tree = LogTree(storage, key)
    head = tree.head()
    path = tuple(tree.inclusion(index, head.size))
    return InclusionProof(next(islice(read_entries(storage), index, None)), head, path)


def prove_continuation(storage: LogStorage, key: Ed25519PublicKey, first: int) -> Continuation:
    """The proof that the log continues what it was with ``first`` entries.

    Raises:
        InputError: ``merkle.range``: it never was, or is not yet, so long.
        UnreachableError: ``state.unreachable``.
        IntegrityError: the log was changed.
    """
    tree = LogTree(storage, key)
    head = tree.head()
    return Continuation(head, tree.consistency(first, head.size))


def export_public(storage: LogStorage, key: Ed25519PublicKey, out: Path) -> Head:
    """Write the file of hashes.

    Returns:
        The head in it.

    Raises:
        InputError: ``file.*``; the log cannot be read.
        UnreachableError: ``state.unreachable``.
        IntegrityError: the log was changed.
    """
    tree = LogTree(storage, key)
    head = tree.head()
    write_aside(out, to_public_bytes(head, tree.leaves(head.size)))
    return head


def export_full(storage: LogStorage, key: Ed25519PublicKey, out: Path) -> Head:
    """Write all entries and the head into a new folder, the same bytes as a log that is kept in a folder.

    Returns:
        The head in it, after every entry that was written has been checked.

    Raises:
        InputError: ``audit.export``: the folder exists or cannot be made; ``file.*``.
        UnreachableError: ``state.unreachable``.
        IntegrityError: the log was changed.
    """
    try:
        out.mkdir(mode=0o700)
    except OSError as error:
        raise InputError(
            "audit.export", f"cannot make the folder {out}: {error.strerror}", remedy="name a new folder"
        ) from error
    with storage.view() as view:
        head = parse_head(view.head, key)
        with writing_aside(out / LOG, mode=0o600) as file:
            for line in islice(view.lines(Position(0, 0)), head.size):
                file.write(line)
    write_aside(out / HEAD, head.to_bytes(), mode=0o600)
    return verify_log(FolderLog(out), key)
