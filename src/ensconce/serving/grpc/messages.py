"""Messages from bytes, and bytes from messages."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.weight import LIGHT, MOST_WEIGHT, TooHeavyError, check_weight
from ensconce.tfserving.wire import MalformedError

__all__ = ["parse", "serialize"]


def parse(message_class: Any, data: bytes | bytearray | memoryview, *, most: int = MOST_WEIGHT) -> Any:
    """The message in bytes.

    Args:
        message_class: its class.
        data: serialized.
        most: see :func:`~ensconce.tfserving.weight.check_weight`; looking takes 0.2 s for every million.

    Raises:
        RequestError: INTERNAL: there is none; RESOURCE_EXHAUSTED: it would make too many objects.
    """
    data = bytes(data)
    try:
        if len(data) > LIGHT:
            check_weight(message_class.DESCRIPTOR, data, most)
        return message_class.FromString(data)
    except TooHeavyError:
        raise RequestError(Code.RESOURCE_EXHAUSTED, "The request has too many elements") from None
    except (DecodeError, MalformedError):
        raise RequestError(Code.INTERNAL, "Unable to parse the request") from None


def serialize(message: Any) -> bytes:
    """The bytes of a message."""
    data: bytes = message.SerializeToString()
    return data
