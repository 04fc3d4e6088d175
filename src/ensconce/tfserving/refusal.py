"""What the API answers when it cannot do what was asked: a canonical status code and a text that clients match on."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from ensconce.errors import EnsconceError

__all__ = ["Code", "RequestError", "invalid"]


class Code(IntEnum):
    """Canonical status codes; gRPC's numbers (grpc/doc/statuscodes.md), which are also ``tensorflow.error.Code``'s."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RequestError(EnsconceError):
    """A request that is refused. ``problem`` is the text on the wire, TensorFlow Serving's own where it has one.

    The check is ``serving.`` and the code's name in lower case. A refused request never ends a process, so the exit
    status is the one of a failure without a class of its own.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"serving.{code.name.lower()}", text)
        self.code = code


def invalid(text: str) -> RequestError:
    """The commonest refusal, INVALID_ARGUMENT, to be raised by the caller."""
    return RequestError(Code.INVALID_ARGUMENT, text)
