"""What is asked, as the scheduler sees it: requests, and the parts of them that are computed at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ensconce.serving.batching.plans import Plan
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["Outcome", "Part", "Request"]


Outcome = dict[str, Array] | RequestError
"""What becomes of a request: outputs by name, or why there are none."""


@dataclass(eq=False, slots=True)
class Request:
    """One call.

    Attributes:
        loaded: whom it asks.
        plan: how.
        inputs: checked against the signature.
        arrived: when.
        tell: told the outcome in the event loop, perhaps even when nobody waits any more; raises nothing.
        parts: what is left of it, waiting or being computed.
        results: outputs of the parts that are done, by their first row.
        gone: whether nobody waits for the answer any more.
    """

    loaded: LoadedServable
    plan: Plan
    inputs: Mapping[str, Array]
    arrived: float
    tell: Callable[[Outcome], object]
    parts: set[Part] = field(default_factory=set)
    results: dict[int, dict[str, Array]] = field(default_factory=dict)
    gone: bool = False


@dataclass(eq=False, slots=True)
class Part:
    """Some rows of a request, or all of them; ``batch`` is the one that it waits in, None once it runs."""

    request: Request
    start: int
    stop: int
    batch: Any = None

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start

    def inputs(self) -> Mapping[str, Array]:
        """The request's inputs, these rows of them."""
        request = self.request
        if self.rows == request.plan.rows:
            return request.inputs
        return {name: array[self.start : self.stop] for name, array in request.inputs.items()}

    @property
    def nbytes(self) -> int:
        """Its share of the request's bytes."""
        plan = self.request.plan
        return plan.nbytes if self.rows == plan.rows else plan.nbytes * self.rows // plan.rows
