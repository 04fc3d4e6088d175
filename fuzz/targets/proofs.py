"""Proofs about the audit log as files and as answers of a server that may lie.

What is accepted with the owner's key alone must be about entries and heads that the owner signed.
"""

from __future__ import annotations

import functools
import json

from ensconce.audit.entry import Entry, sign_entry
from ensconce.audit.head import Head, sign_head
from ensconce.audit.merkle import Frontier, Tree
from ensconce.audit.proofs import (
    ConsistencyProof,
    Continuation,
    InclusionProof,
    check_continuation,
    parse_consistency,
    parse_proof,
)
from ensconce.errors import InputError, IntegrityError
from ensconce.times import utc_text
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["COUNT", "TARGET", "check", "head", "proof_between"]

COUNT, _EARLIER = 11, 5
_PUBLIC = world.AUDIT_KEY.public_key()


def check(data: bytes) -> bool:
    """Read a proof of any kind, and use it."""
    answer = attempt(lambda: parse_consistency(data), InputError)
    if not isinstance(answer, Refused):
        holds(parse_consistency(answer.to_bytes()) == answer, "a round trip changes the answer")
    proof = attempt(lambda: parse_proof(data, _PUBLIC), InputError, IntegrityError)
    if isinstance(proof, Refused):
        return not isinstance(answer, Refused)
    holds(parse_proof(proof.to_bytes(), _PUBLIC) == proof, "a round trip changes the proof")
    holds(proof.head in (head(COUNT), head(_EARLIER)), "a head that nobody signed")
    if isinstance(proof, InclusionProof):
        holds(proof.entry in _entries() and proof.entry.seq < proof.head.size, "an entry that is not in the log")
        return True
    continued = attempt(lambda: check_continuation(head(_EARLIER), proof.head, proof.consistency), IntegrityError)
    holds(isinstance(continued, Refused) or proof.head.size >= _EARLIER, "a log that went back")
    return True


@functools.cache
def _entries() -> list[Entry]:
    entries, previous = [], bytes(32)
    for number in range(COUNT):
        entry = sign_entry(number, utc_text(world.NOW), "key.released", {"n": number}, previous, world.AUDIT_KEY)
        entries.append(entry)
        previous = entry.hash
    return entries


def _leaves(size: int) -> list[bytes]:
    return [entry.leaf_hash() for entry in _entries()[:size]]


@functools.cache
def _tree() -> Tree:
    tree = Tree()
    for leaf in _leaves(COUNT):
        tree.append(leaf)
    return tree


@functools.cache
def head(size: int) -> Head:
    """The signed head of so many entries."""
    frontier = Frontier()
    for leaf in _leaves(size):
        frontier.append(leaf)
    last = _entries()[size - 1].hash
    return sign_head(size, frontier.root(), last, utc_text(world.NOW), world.AUDIT_KEY)


def proof_between(first: int, second: int) -> ConsistencyProof:
    """The proof that the log of ``first`` entries is the beginning of that of ``second``."""
    return ConsistencyProof(first, second, tuple(_tree().consistency(first, second)))


def seeds() -> dict[str, bytes]:
    """One proof of each kind."""
    consistency = proof_between(_EARLIER, COUNT)
    inclusion = tuple(_tree().inclusion(3, COUNT))
    return {
        "good-consistency": consistency.to_bytes(),
        "good-continuation": Continuation(head(COUNT), consistency).to_bytes(),
        "good-inclusion": InclusionProof(_entries()[3], head(COUNT), inclusion).to_bytes(),
    }


TARGET = Target(
    "proofs",
    check,
    seeds,
    by_tree(json.loads, lambda tree: json.dumps(tree).encode()),
    max_size=4096,
    words=(b"1e400",),
)
