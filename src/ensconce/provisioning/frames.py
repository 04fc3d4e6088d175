"""Frames of wire v2: 4 bytes of length, big-endian, then that many bytes of one message.

Reference: ``docs/reference/wire-v2.md``, section "Frames".
"""

from __future__ import annotations

from typing import Protocol

from ensconce.errors import UnreachableError

__all__ = ["MAX_FRAME", "Stream", "read_frame", "write_frame"]

MAX_FRAME = 64 * 1024
"""Longest message in bytes, without the four of its length."""


class Stream(Protocol):
    """What frames travel on; :class:`ensconce.ratls.stream.TlsStream` is one."""

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or an UnreachableError."""
        ...

    def write(self, data: bytes) -> None:
        """All of ``data``, or an UnreachableError."""
        ...


def read_frame(stream: Stream) -> bytes:
    """Read one message; an empty or too long one is refused before any of it is read.

    Raises:
        UnreachableError: ``provisioning.frame``, or whatever the stream raises.
    """
    size = int.from_bytes(stream.read(4), "big")
    if not 0 < size <= MAX_FRAME:
        raise UnreachableError(
            "provisioning.frame",
            "a message of this length is not read",
            found=f"{size} bytes",
            rule=f"1 to {MAX_FRAME} bytes",
            remedy="check that the other side speaks ensconce/1",
        )
    return stream.read(size)


def write_frame(stream: Stream, message: bytes) -> None:
    """Write one message.

    Raises:
        ValueError: it is empty or too long, which its maker has to prevent.
        UnreachableError: whatever the stream raises.
    """
    if not 0 < len(message) <= MAX_FRAME:
        raise ValueError(f"a message of {len(message)} bytes")
    stream.write(len(message).to_bytes(4, "big") + message)
