"""What the fronts tell of each request, for metrics and the request log; never what was in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ensconce.tfserving.refusal import Code

__all__ = ["Answered", "Method", "Observe", "to_all"]

Method = Literal["Predict", "Classify", "Regress", "MultiInference", "GetModelStatus", "GetModelMetadata", ""]


class Answered(NamedTuple):
    """A request that was answered, or refused.

    Attributes:
        entrypoint: ``GRPC`` or ``REST``.
        method: the API's name for what was asked; empty where that was never known.
        model: name of a model that is loaded; empty where the client named another, or none.
        version: that answered; None where none did.
        signature: of the version; empty where none was used.
        code: how it ended.
        status: of HTTP; 0 for gRPC.
        seconds: from the last byte of the request to the answer.
        received: bytes of the request's message or body.
        sent: bytes of the answer's.
        peer: address of the client, with port; "local" on a UNIX socket.
    """

    entrypoint: Literal["GRPC", "REST"]
    method: Method
    model: str
    version: int | None
    signature: str
    code: Code
    status: int
    seconds: float
    received: int
    sent: int
    peer: str


Observe = Callable[[Answered], None]


def to_all(observers: Sequence[Observe]) -> Observe:
    """One observer that tells these."""
    if len(observers) == 1:
        return observers[0]

    def observe(answered: Answered) -> None:
        for each in observers:
            each(answered)

    return observe
