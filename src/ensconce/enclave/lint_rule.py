"""What a rule of the lint is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Rule", "Severity"]

Severity = Literal["refuse", "warn", "note"]
"""``refuse``: not to be signed. ``warn``: right only for reasons that the manifest does not show. ``note``: to know."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for, and why.

    Attributes:
        severity: how bad it is.
        attack: what somebody can do because of it, in one or two sentences.
        remedy: what to do about it.
        invariant: the one that it breaks, ``I1`` to ``I9``; empty for what only makes an attack easier.
    """

    severity: Severity
    attack: str
    remedy: str
    invariant: str = ""
