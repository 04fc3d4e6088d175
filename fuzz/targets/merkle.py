"""Proofs of RFC 9162, as a log's owner who lies would make them: no wrong one is accepted, and every right one is.

The bytes choose two sizes, an index, and hashes out of those of the tree, so that nearly right proofs are common.
"""

from __future__ import annotations

import functools

from ensconce.audit.merkle import (
    Frontier,
    Tree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from ensconce.errors import IntegrityError
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_SIZE = 33
_LEAVES = [leaf_hash(bytes([number])) for number in range(_SIZE)]


def check(data: bytes) -> bool:
    """Verify one proof of inclusion and one of consistency; see the module."""
    first, second, index, *chosen = data.ljust(3, b"\0")
    earlier, size, proof = first % (_SIZE + 1), second % (_SIZE + 1), [_pool()[each % len(_pool())] for each in chosen]
    accepted = False
    inclusion = attempt(
        lambda: verify_inclusion(_LEAVES[first % _SIZE], index, size, proof, _root(size)), IntegrityError
    )
    if not isinstance(inclusion, Refused):
        holds(index < size and first % _SIZE == index, "a leaf that is not there")
        holds(proof == _tree().inclusion(index, size), "a proof with two spellings")
        accepted = True
    consistency = attempt(lambda: verify_consistency(earlier, size, proof, _root(earlier), _root(size)), IntegrityError)
    if not isinstance(consistency, Refused):
        holds(0 < earlier <= size, "no earlier log")
        holds(proof == _tree().consistency(earlier, size), "a proof with two spellings")
        accepted = True
    for before, after in ((_root(earlier), _other_root(size)), (_other_root(earlier), _root(size))):
        forged = attempt(lambda: verify_consistency(earlier, size, proof, before, after), IntegrityError)  # noqa: B023
        holds(isinstance(forged, Refused), "a log that was rewritten passes")
    return accepted


@functools.cache
def _tree() -> Tree:
    tree = Tree()
    for leaf in _LEAVES:
        tree.append(leaf)
    return tree


@functools.cache
def _root(size: int) -> bytes:
    return _root_of(_LEAVES[:size])


@functools.cache
def _other_root(size: int) -> bytes:
    """The root of a log that was rewritten from its first entry."""
    return _root_of([leaf_hash(b"rewritten"), *_LEAVES[1:size]])


def _root_of(leaves: list[bytes]) -> bytes:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


@functools.cache
def _pool() -> list[bytes]:
    """Every hash that a proof over these leaves may hold, and some that none may; at most 256."""
    hashes: dict[bytes, None] = {}
    for size in range(1, _SIZE + 1):
        for earlier in (1, 2, 3, 7, 8, 16, 17, 31, 32):
            if earlier <= size:
                hashes |= dict.fromkeys(_tree().consistency(earlier, size))
        for index in (0, size // 2, size - 1):
            hashes |= dict.fromkeys(_tree().inclusion(index, size))
    return [*[*hashes][:250], bytes(32), node_hash(_LEAVES[0], _LEAVES[0]), b""]


def seeds() -> dict[str, bytes]:
    """Right proofs for a few sizes."""
    pool, made = _pool(), {}
    for earlier, size in ((1, 2), (3, 7), (8, 33), (16, 33), (7, 33)):
        proof = _tree().consistency(earlier, size)
        if all(each in pool for each in proof):
            made[f"good-consistency-{earlier}-{size}"] = bytes([earlier, size, 0, *map(pool.index, proof)])
    for index, size in ((0, 1), (0, 33), (16, 33), (32, 33)):
        proof = _tree().inclusion(index, size)
        if all(each in pool for each in proof):
            made[f"good-inclusion-{index}-{size}"] = bytes([index, size, index, *map(pool.index, proof)])
    return made


TARGET = Target("merkle", check, seeds, max_size=64)
