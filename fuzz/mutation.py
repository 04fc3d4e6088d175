"""Bending inputs that have lengths, hashes, seals or grammar around what is worth bending.

Each function makes a :data:`~fuzz.target.Mutator`. All fall back to bending bytes: always when the input has no
structure (any more), and now and then when it has, because the frame itself is to be attacked too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.target import Havoc, Mutator

__all__ = ["by_parts", "by_tree", "choose"]

_PLAIN = 0.25
"""How often an input is bent as bytes although it has structure."""

_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**30, 1.5, -0.0,
    1e300, "", "0", "\0", "\ud800", "é", "\u202e", "a" * 300, "//", "..", "=", "AA==", "AAA=", [], {}, [[]], [{}],
)  # fmt: skip


def choose(mutators: Sequence[Mutator]) -> Mutator:
    """One of these, by chance."""

    def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
        return rng.choice(mutators)(data, rng, havoc)

    return mutate


def by_parts(split: Callable[[bytes], list[bytes] | None], join: Callable[[list[bytes]], bytes]) -> Mutator:
    """Bend one part and put the whole together again.

    Args:
        split: the parts of an input; None when it has none.
        join: makes an input of as many parts, with whatever lengths and seals belong around them; raises ValueError,
            TypeError or OverflowError when these parts make none.
    """

    def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
        parts = split(data) if rng.random() >= _PLAIN else None
        if not parts:
            return havoc(data)
        at = rng.randrange(len(parts))
        parts[at] = havoc(parts[at])
        if rng.random() < 0.1:
            parts[rng.randrange(len(parts))] = parts[rng.randrange(len(parts))]
        try:
            return join(parts)
        except (ValueError, TypeError, OverflowError):
            return havoc(data)

    return mutate


def by_tree(load: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> Mutator:
    """Bend one node of a tree of lists, mappings and scalars.

    Args:
        load: reads an input; any exception says that it cannot be read.
        dump: writes it; any exception says that such a tree cannot be written.
    """

    def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
        if rng.random() < _PLAIN:
            return havoc(data)
        try:
            tree = copy.deepcopy(load(data))
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                tree = _bent(tree, rng, havoc)
            return dump(tree)
        except Exception:  # whatever a library raises for bytes or trees that it cannot do: bytes can be bent anyway
            return havoc(data)

    return mutate


def _bent(tree: Any, rng: random.Random, havoc: Havoc) -> Any:
    """The tree with one node changed, removed, doubled or swapped for another."""
    places = _places(tree)
    if not places:
        return _other(tree, rng, havoc)
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.6:
        holder[key] = _other(holder[key], rng, havoc)
    elif what < 0.7:
        del holder[key]
    elif what < 0.8:
        other, there = rng.choice(places)
        holder[key] = copy.deepcopy(other[there])
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        renamed = _text(str(key), rng, havoc) if what < 0.9 else rng.choice(_names(tree))
        holder[renamed] = holder.pop(key) if rng.random() < 0.5 else copy.deepcopy(holder[key])
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending and len(found) < 5000:
        node = pending.pop()
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            found += [(node, key) for key in keys]
            pending += [node[key] for key in keys]
    return found


def _names(tree: Any) -> list[str]:
    return [str(key) for holder, key in _places(tree) if isinstance(holder, dict)] or [""]


def _other(value: Any, rng: random.Random, havoc: Havoc) -> Any:
    if rng.random() < 0.25:
        return copy.deepcopy(rng.choice(_ODD))
    if rng.random() < 0.05:
        return [value] if rng.random() < 0.5 else {"a": value}
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2, value ^ 1 << rng.randrange(64)))
    if isinstance(value, str):
        return _text(value, rng, havoc)
    if isinstance(value, list) and value:
        return rng.sample(value, len(value)) if rng.random() < 0.5 else value * rng.choice((2, 16))
    return copy.deepcopy(rng.choice(_ODD))


def _text(value: str, rng: random.Random, havoc: Havoc) -> str:
    if rng.random() < 0.3 and value:
        # The same alphabet: digits stay digits, base64 stays base64.
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(value) + value[at + rng.choice((0, 1)) :]
    bent = havoc(value.encode("utf-8", "surrogatepass"))
    return bent.decode("utf-8", rng.choice(("replace", "ignore", "surrogateescape")))
