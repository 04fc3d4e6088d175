"""Proofs about a log, as files and as answers of the status address: canonical JSON, judged with the owner's key alone.

Three objects: a *consistency proof* (``first``, ``second``, ``path``) says that one log is the beginning of another; a
*continuation* (``head``, ``consistency``) adds the later signed head; an *inclusion proof* (``entry``, ``head``,
``path``) shows one entry and nothing else of the log. ``path`` is RFC 9162's, lowercase hexadecimal, lowest first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce import strict_json
from ensconce.audit.entry import MAX_LINE, Entry, canonical, parse_entry, signature_is_good
from ensconce.audit.head import Head, parse_head
from ensconce.audit.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion
from ensconce.errors import InputError, IntegrityError

__all__ = [
    "MAX_PROOF",
    "ConsistencyProof",
    "Continuation",
    "InclusionProof",
    "check_beginning",
    "check_continuation",
    "parse_consistency",
    "parse_proof",
]

MAX_PROOF = 2 * MAX_LINE
"""Longest proof in bytes."""
_MAX_PATH = 128
_MAX_SIZE = 2**53 - 1
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ConsistencyProof:
    """That the log of ``first`` entries is the beginning of the log of ``second``.

    Attributes:
        first: entries of the earlier log; at least 1.
        second: entries of the later log.
        path: the hashes of RFC 9162 section 2.1.4, 32 bytes each.
    """

    first: int
    second: int
    path: tuple[bytes, ...]

    def to_json_object(self) -> dict[str, object]:
        """The proof as JSON types."""
        return {"first": self.first, "second": self.second, "path": [each.hex() for each in self.path]}

    def to_bytes(self) -> bytes:
        """Canonical JSON and a newline."""
        return canonical(self.to_json_object()) + b"\n"


@dataclass(frozen=True)
class Continuation:
    """A signed head, and that the log of ``consistency.first`` entries is the beginning of its log.

    Attributes:
        head: the later head.
        consistency: the proof; its ``second`` is ``head.size``.
    """

    head: Head
    consistency: ConsistencyProof

    def to_bytes(self) -> bytes:
        """Canonical JSON and a newline."""
        value = {"head": self.head.to_json_object(), "consistency": self.consistency.to_json_object()}
        return canonical(value) + b"\n"


@dataclass(frozen=True)
class InclusionProof:
    """That an entry is in the log.

    Attributes:
        entry: the entry, all of it.
        head: a signed head of the log.
        path: the hashes of RFC 9162 section 2.1.3, 32 bytes each.
    """

    entry: Entry
    head: Head
    path: tuple[bytes, ...]

    def to_json_object(self) -> dict[str, object]:
        """The proof as JSON types."""
        return {
            "entry": self.entry.to_json_object(),
            "head": self.head.to_json_object(),
            "path": [each.hex() for each in self.path],
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON and a newline."""
        return canonical(self.to_json_object()) + b"\n"


def parse_proof(data: bytes, key: Ed25519PublicKey) -> InclusionProof | Continuation:
    """Read a proof file and check all of it that can be checked with the owner's key alone.

    That is everything of an inclusion proof; for a continuation, :func:`check_continuation` takes the earlier head.

    Raises:
        InputError: ``audit.proof``: it is no proof.
        IntegrityError: ``audit.head``, ``audit.key``, ``audit.entry``, ``audit.hash``, ``audit.signature``,
            ``merkle.inclusion``.
    """
    value = _object(data, MAX_PROOF)
    if value.keys() == {"head", "consistency"}:
        head = parse_head(canonical(value["head"]) + b"\n", key)
        consistency = _consistency(value["consistency"])
        if consistency.second != head.size:
            raise _no_proof("the proof leads to another size than its head's")
        return Continuation(head, consistency)
    if value.keys() != {"entry", "head", "path"} or not isinstance(value["entry"], dict):
        raise _no_proof("neither an inclusion proof nor a continuation")
    head = parse_head(canonical(value["head"]) + b"\n", key)
    seq = value["entry"].get("seq")
    entry = parse_entry(canonical(value["entry"]) + b"\n", seq if type(seq) is int else 0)
    if not signature_is_good(entry, key):
        raise IntegrityError(
            "audit.signature",
            f"entry {entry.seq} was not written by the log's owner",
            found=entry.hash.hex(),
            remedy="do not believe this entry",
        )
    path = _path(value["path"])
    verify_inclusion(entry.leaf_hash(), entry.seq, head.size, path, head.root)
    return InclusionProof(entry, head, path)


def parse_consistency(data: bytes) -> ConsistencyProof:
    """Read a consistency proof as the status address answers it.

    Raises:
        InputError: ``audit.proof``.
    """
    return _consistency(_object(data, MAX_PROOF))


def check_continuation(earlier: Head, later: Head, proof: ConsistencyProof | None) -> None:
    """Check that ``later`` is a head of the same log as ``earlier``, grown or not. Both are authentic already.

    Args:
        earlier: the head that was kept.
        later: the head that was fetched.
        proof: between their sizes; None where the sizes are equal or ``earlier`` is of an empty log.

    Raises:
        IntegrityError: ``audit.fork`` (two logs of one size), ``audit.rollback``, ``merkle.consistency``.
    """
    if later.size < earlier.size:
        raise _bent("audit.rollback", "the log went back", f"{later.size} entries, and there were {earlier.size}")
    if later.size == earlier.size:
        if (later.root, later.last) != (earlier.root, earlier.last):
            raise _bent("audit.fork", "there are two logs", f"two signed roots for {later.size} entries")
    elif earlier.size == 0:
        if earlier.root != EMPTY_ROOT:
            raise _bent("audit.fork", "the earlier head is of no log", "a root for 0 entries")
    elif proof is None or (proof.first, proof.second) != (earlier.size, later.size):
        raise _bent("merkle.consistency", "no proof leads from the earlier head to the later one", None)
    else:
        verify_consistency(earlier.size, later.size, proof.path, earlier.root, later.root)


def check_beginning(earlier: Head, size: int, root: Callable[[int], bytes]) -> None:
    """Check that a log, of which all hashes are at hand, continues the log of an earlier authentic head.

    Args:
        earlier: the head that was kept.
        size: entries of the log now.
        root: root of so many of its first entries.

    Raises:
        IntegrityError: ``audit.rollback``, ``audit.fork``.
    """
    if size < earlier.size:
        raise _bent("audit.rollback", "the log went back", f"{size} entries, and there were {earlier.size}")
    if root(earlier.size) != earlier.root:
        raise _bent("audit.fork", f"the log's first {earlier.size} entries are not those of the earlier head", None)


def _object(data: bytes, limit: int) -> dict[str, object]:
    try:
        value = strict_json.loads(data) if len(data) <= limit else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _no_proof(ascii(data[:60]))
    return value


def _consistency(value: object) -> ConsistencyProof:
    if not isinstance(value, dict) or value.keys() != {"first", "second", "path"}:
        raise _no_proof("no consistency proof")
    first, second = value["first"], value["second"]
    if type(first) is not int or type(second) is not int or not 0 < first <= second <= _MAX_SIZE:
        raise _no_proof("sizes that no log has")
    return ConsistencyProof(first, second, _path(value["path"]))


def _path(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > _MAX_PATH:
        raise _no_proof("a path that is no list of hashes")
    if not all(isinstance(each, str) and _HEX.fullmatch(each) for each in value):
        raise _no_proof("a path that is no list of hashes")
    return tuple(bytes.fromhex(each) for each in value)


def _no_proof(found: str) -> InputError:
    return InputError(
        "audit.proof", "this is no proof about an audit log", found=found, remedy="ask the owner for a proof"
    )


def _bent(check: str, problem: str, found: str | None) -> IntegrityError:
    return IntegrityError(
        check,
        problem,
        found=found,
        rule="a log only grows",
        remedy="do not believe this log; keep both heads and ask its owner",
    )
