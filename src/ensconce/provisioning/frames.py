"""Frames of wire v2: 4 bytes of length, big-endian, then that many bytes of one message.

Reference: ``docs/reference/wire-v2.md``, section "Frames".
"""

from __future__ import annotations

from typing import Protocol

from OpenSSL import SSL

from ensconce.errors import UnreachableError

__all__ = [
    "MAX_FRAME",
    "AsyncStream",
    "Stream",
    "read_frame",
    "read_frame_async",
    "write_frame",
    "write_frame_async",
]

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


class AsyncStream(Protocol):
    """The same on an event loop; :class:`ensconce.ratls.async_stream.AsyncTlsStream` is one.

    Attributes:
        connection: the TLS connection, for what a finished handshake has agreed on.
        deadline: by ``time.monotonic()``, for everything that is done on the stream; whoever holds it may move it.
    """

    connection: SSL.Connection
    deadline: float

    async def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or an UnreachableError."""
        ...

    async def write(self, data: bytes) -> None:
        """All of ``data``, or an UnreachableError."""
        ...


def read_frame(stream: Stream) -> bytes:
    """Read one message; an empty or too long one is refused before any of it is read.

    Raises:
        UnreachableError: ``provisioning.frame``, or whatever the stream raises.
    """
    return stream.read(_size(stream.read(4)))


async def read_frame_async(stream: AsyncStream) -> bytes:
    """:func:`read_frame` on an event loop."""
    return await stream.read(_size(await stream.read(4)))


def write_frame(stream: Stream, message: bytes) -> None:
    """Write one message.

    Raises:
        ValueError: it is empty or too long, which its maker has to prevent.
        UnreachableError: whatever the stream raises.
    """
    stream.write(_framed(message))


async def write_frame_async(stream: AsyncStream, message: bytes) -> None:
    """:func:`write_frame` on an event loop."""
    await stream.write(_framed(message))


def _size(prefix: bytes) -> int:
    size = int.from_bytes(prefix, "big")
    if not 0 < size <= MAX_FRAME:
        raise UnreachableError(
            "provisioning.frame",
            "a message of this length is not read",
            found=f"{size} bytes",
            rule=f"1 to {MAX_FRAME} bytes",
            remedy="check that the other side speaks ensconce/1",
        )
    return size


def _framed(message: bytes) -> bytes:
    if not 0 < len(message) <= MAX_FRAME:
        raise ValueError(f"a message of {len(message)} bytes")
    return len(message).to_bytes(4, "big") + message
