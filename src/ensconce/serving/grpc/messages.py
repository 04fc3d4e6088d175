"""Messages from bytes, and bytes from messages."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["parse", "serialize"]


def parse(message_class: Any, data: bytes) -> Any:
    """The message in bytes.

    Raises:
        RequestError: INTERNAL: there is none.
    """
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise RequestError(Code.INTERNAL, "Unable to parse the request") from None


def serialize(message: Any) -> bytes:
    """The bytes of a message."""
    data: bytes = message.SerializeToString()
    return data
