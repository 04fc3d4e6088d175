"""Proofs about the audit log as files and as answers of a server that may lie.

What is accepted with the owner's key alone must be about entries and heads that the owner signed.
"""

from __future__ import annotations

import functools
import json

from ensconce.audit.entry import Entry, make_entry
from ensconce.audit.head import Head, sign_head
from ensconce.audit.merkle import Frontier, consistency_proof, inclusion_proof
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

__all__ = ["TARGET", "check"]

_COUNT, _EARLIER = 11, 5
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
    holds(proof.head in (_head(_COUNT), _head(_EARLIER)), "a head that nobody signed")
    if isinstance(proof, InclusionProof):
        holds(proof.entry in _entries() and proof.entry.seq < proof.head.size, "an entry that is not in the log")
        return True
    continued = attempt(lambda: check_continuation(_head(_EARLIER), proof.head, proof.consistency), IntegrityError)
    holds(isinstance(continued, Refused) or proof.head.size >= _EARLIER, "a log that went back")
    return True


@functools.cache
def _entries() -> list[Entry]:
    entries, previous = [], bytes(32)
    for number in range(_COUNT):
        entry = make_entry(number, utc_text(world.NOW), "key.released", {"n": number}, previous, world.AUDIT_KEY)
        entries.append(entry)
        previous = entry.hash
    return entries


def _leaves(size: int) -> list[bytes]:
    return [entry.leaf_hash() for entry in _entries()[:size]]


@functools.cache
def _head(size: int) -> Head:
    frontier = Frontier()
    for leaf in _leaves(size):
        frontier.append(leaf)
    last = _entries()[size - 1].hash
    return sign_head(size, frontier.root(), last, utc_text(world.NOW), world.AUDIT_KEY)


def seeds() -> dict[str, bytes]:
    """One proof of each kind."""
    path = tuple(consistency_proof(_leaves(_COUNT), _EARLIER))
    consistency = ConsistencyProof(_EARLIER, _COUNT, path)
    inclusion = tuple(inclusion_proof(_leaves(_COUNT), 3))
    return {
        "good-consistency": consistency.to_bytes(),
        "good-continuation": Continuation(_head(_COUNT), consistency).to_bytes(),
        "good-inclusion": InclusionProof(_entries()[3], _head(_COUNT), inclusion).to_bytes(),
    }


TARGET = Target(
    "proofs",
    check,
    seeds,
    by_tree(json.loads, lambda tree: json.dumps(tree).encode()),
    max_size=4096,
    words=(b"1e400",),
)
