"""What a judgement did, step by step, for those who have to show it afterwards.

The code that judges names each step when it enters it, and each comparison once it has held. Nobody listens unless
:func:`recorded` is open around it, and nothing that is judged depends on whether somebody does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Held", "Step", "Trail", "exhibit", "held", "recorded", "recording", "step"]

_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Held:
    """A comparison that came out well.

    Attributes:
        check: its name, the one that an error would have.
        label: what was compared, for people.
        found: the value at hand, at most 1,000 characters; may be a stranger's.
        rule: what it had to be.
        end: when it ceases to hold, seconds since 1970; None where time changes nothing.
    """

    check: str
    label: str
    found: str
    rule: str
    end: int | None = None


@dataclass(slots=True)
class Step:
    """A part of a judgement.

    Attributes:
        name: of the step.
        state: ``reached`` while it is judged; ``passed`` when that came to its end, ``failed`` when it raised.
        held: what was compared, in this order.
    """

    name: str
    state: Literal["reached", "passed", "failed"] = "reached"
    held: list[Held] = field(default_factory=list)


@dataclass(slots=True)
class Trail:
    """What was recorded.

    Attributes:
        steps: in the order in which they were entered.
        exhibits: by name, what was judged.
        depth: how many steps are open, one within the other.
    """

    steps: list[Step] = field(default_factory=list)
    exhibits: dict[str, object] = field(default_factory=dict)
    depth: int = 0

    def enter(self, name: str) -> Step:
        """The step that begins or goes on."""
        self.depth += 1
        if self.depth > 1:
            return Step(name)
        if not self.steps or self.steps[-1].name != name:
            self.steps.append(Step(name))
        self.steps[-1].state = "reached"
        return self.steps[-1]


_TRAIL: ContextVar[Trail | None] = ContextVar("trail", default=None)
# Servers judge thousands of quotes in a second, and nobody listens.
_UNRECORDED = contextlib.nullcontext()


@contextlib.contextmanager
def recorded() -> Iterator[Trail]:
    """Record what is judged in this context."""
    token = _TRAIL.set(trail := Trail())
    try:
        yield trail
    finally:
        _TRAIL.reset(token)


def recording() -> bool:
    """Whether anybody listens: for what would take long to say."""
    return _TRAIL.get() is not None


def step(name: str) -> contextlib.AbstractContextManager[None]:
    """Everything in this block is the step of that name.

    A step within another is not recorded by itself, nor is what held in it: the outer one sums that up. A step that is
    entered again right after it ended goes on.
    """
    trail = _TRAIL.get()
    return _UNRECORDED if trail is None else _taken(trail, name)


@contextlib.contextmanager
def _taken(trail: Trail, name: str) -> Iterator[None]:
    entered = trail.enter(name)
    try:
        yield
    except BaseException:
        entered.state = "failed"
        raise
    else:
        entered.state = "passed"
    finally:
        trail.depth -= 1


def held(check: str, label: str, *, found: str, rule: str, end: int | None = None) -> None:
    """This comparison came out well: to be called after it, within a step. Arguments as in :class:`Held`."""
    trail = _TRAIL.get()
    if trail is not None and trail.depth == 1:
        trail.steps[-1].held.append(Held(check, label, found[:_MAX_TEXT], rule[:_MAX_TEXT], end))


def exhibit(name: str, what: object) -> None:
    """This is what is judged from here on, within a step: kept as it is, whatever comes of it."""
    trail = _TRAIL.get()
    if trail is not None and trail.depth == 1:
        trail.exhibits[name] = what
