"""What a target is, and the few rules that every parser is held to.

A target's ``check`` takes any bytes and raises when an invariant does not hold: :class:`InvariantError`, or whatever a
parser let out that it should not have. It returns whether the input was accepted, which is how the tests see that the
seeds get as deep as they are meant to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ensconce.errors import EnsconceError

__all__ = ["Havoc", "InvariantError", "Mutator", "Refused", "Target", "attempt", "holds"]

Havoc = Callable[[bytes], bytes]
"""Bends bytes without knowing what they mean: libFuzzer's own mutations."""
Mutator = Callable[[bytes, random.Random, Havoc], bytes]
"""Bends an input knowing how it is made: the input, the choices to make, and what bends a part of it."""

_MAX_TEXT = 4096
"""Characters of an error, all fields together: it goes into logs and over the wire, and its cause is a stranger's."""

T = TypeVar("T")


class InvariantError(AssertionError):
    """An invariant does not hold."""


class Refused:
    """What :func:`attempt` gives when a parser refused, as it may."""

    def __init__(self, error: EnsconceError) -> None:
        """Keep the refusal, for targets that look at it."""
        self.error = error


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        name: of the target and of its folder in the corpus.
        check: takes any bytes; raises when an invariant does not hold; returns whether the input was accepted.
        seeds: makes the inputs to start from, by name; a name that begins with ``good`` says that it is accepted.
        mutate: bends inputs so that they stay deep; None where bending bytes is enough.
        max_size: longest input to try, in bytes.
        cpu_s: processor time that one input may take, in seconds; uninstrumented it is a tenth of that.
        words: pieces that the format is made of.
    """

    name: str
    check: Callable[[bytes], bool]
    seeds: Callable[[], Mapping[str, bytes]]
    mutate: Mutator | None = None
    max_size: int = 16 * 1024
    cpu_s: float = 2.0
    words: tuple[bytes, ...] = ()


def attempt(parse: Callable[[], T], *kinds: type[EnsconceError]) -> T | Refused:
    """What a parser makes of its input, or how it refused.

    Args:
        parse: calls the parser.
        kinds: the documented kinds of refusal; a subclass is none of them.

    Raises:
        InvariantError: an error of another kind, or one that says too much.
    """
    try:
        return parse()
    except EnsconceError as error:
        holds(type(error) in kinds, f"refused with {type(error).__name__}, which is not documented: {error}")
        text = str(error)
        holds(text.isprintable(), "the error is not one printable line")
        holds(len(text) <= _MAX_TEXT, f"the error has {len(text)} characters")
        json.dumps(error.fields()).encode()
        return Refused(error)


def holds(condition: object, problem: str) -> None:
    """State an invariant.

    Raises:
        InvariantError: ``condition`` is not true.
    """
    if not condition:
        raise InvariantError(problem)
