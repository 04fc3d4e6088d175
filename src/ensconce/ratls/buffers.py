"""Reads and writes of a TLS connection from and to the caller's own memory.

pyOpenSSL makes, clears and copies a buffer for every read, and writes one record at a time. For bodies of many records
this is what takes the time, so here its bindings are called directly; everything else goes through pyOpenSSL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL

__all__ = ["Bytes", "Outbox", "read_into", "write"]

Bytes = bytes | bytearray | memoryview

_lib: Final[Any] = SSL._lib  # type: ignore[attr-defined]
_from_buffer: Final[Any] = SSL._ffi.from_buffer  # type: ignore[attr-defined]


def read_into(connection: SSL.Connection, buffer: bytearray | memoryview, size: int) -> int:
    """Read some plaintext, of one record at most.

    Args:
        connection: its handshake is done.
        buffer: where to.
        size: at most so many bytes, which the buffer has room for.

    Returns:
        How many bytes were read, at least 1.

    Raises:
        SSL.Error: as :meth:`SSL.Connection.recv`: ``WantReadError``, ``ZeroReturnError`` and others.
    """
    count: int = _lib.SSL_read(connection._ssl, _from_buffer(buffer), size)
    if count <= 0:
        connection._raise_ssl_error(connection._ssl, count)
    return count


def write(connection: SSL.Connection, data: Bytes, size: int) -> int:
    """Write plaintext, as many records as there is room for.

    Args:
        connection: its handshake is done.
        data: what; after a call that raised, the same again, longer if need be.
        size: how many bytes of it, at least 1.

    Returns:
        How many were written, at least 1.

    Raises:
        SSL.Error: as :meth:`SSL.Connection.send`, when not a byte was written.
    """
    start, done = _from_buffer(data), 0
    while done < size:
        count: int = _lib.SSL_write(connection._ssl, start + done, size - done)
        if count <= 0:
            try:
                connection._raise_ssl_error(connection._ssl, count)
            except (SSL.WantReadError, SSL.WantWriteError):
                if done:
                    break
                raise
        done += count
    return done


class Outbox:
    """What connections without a socket want to send. Its memory is lent to all whom it tells."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(64 * 1024))
        self._start = _from_buffer(self._memory)

    def take(self, connection: SSL.Connection, tell: Callable[[memoryview], object]) -> None:
        """Tell all that there is, in parts, each good until ``tell`` returns."""
        while part := self.part(connection):
            tell(part)

    def part(self, connection: SSL.Connection) -> memoryview:
        """Some of what there is, good until the next is taken; empty where there is nothing."""
        count: int = _lib.BIO_read(connection._from_ssl, self._start, len(self._memory))
        return self._memory[: max(0, count)]
