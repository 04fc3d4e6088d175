"""What is asked, as the scheduler sees it: requests, and the parts of them that are computed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ensconce.serving.batching.pace import Pace
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.tensor import Array

__all__ = ["Part", "Request"]


@dataclass(eq=False, slots=True)
class Request:
    """One call.

    Attributes:
        loaded: whom it asks.
        signature: the signature's name.
        outputs: the outputs wanted, in order.
        pace: what is known of the signature.
        inputs: checked against the signature.
        rows: the 0th dimension of the inputs; 0 when it is not to be merged.
        mates: what must be equal in requests that are merged with this one; None when there can be no such.
        shape: what its time depends on besides its rows; None when that cannot be told.
        nbytes: of the inputs.
        arrived: when.
        future: whom the event loop tells.
        parts: what is left of it, waiting or being computed.
        results: outputs of the parts that are done, by their first row.
        gone: whether nobody waits for the answer any more.
    """

    loaded: LoadedServable
    signature: str
    outputs: tuple[str, ...]
    pace: Pace
    inputs: Mapping[str, Array]
    rows: int
    mates: Hashable | None
    shape: Hashable | None
    nbytes: int
    arrived: float
    future: asyncio.Future[dict[str, Array]]
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
        if self.rows == request.rows:
            return request.inputs
        return {name: array[self.start : self.stop] for name, array in request.inputs.items()}

    @property
    def nbytes(self) -> int:
        """Its share of the request's bytes."""
        request = self.request
        return request.nbytes if self.rows == request.rows else request.nbytes * self.rows // request.rows
