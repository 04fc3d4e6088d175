"""The server's end of a TLS connection on an event loop, with one deadline and one allowance for everything on it.

OpenSSL reads from memory, not from the socket: the stream hands it what came, 16 KiB at a time, and counts. So no peer
can keep OpenSSL busy inside one call, and no connection receives more than it may: bytes, and TLS records, since an
empty one or a key update costs as much as a long one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from OpenSSL import SSL

from ensconce.errors import UnreachableError
from ensconce.ratls.stream import reasons

__all__ = ["ALLOWANCE", "HANDSHAKE_ALLOWANCE", "MAX_RECORDS", "AsyncTlsStream", "first_byte"]

P = ParamSpec("P")
T = TypeVar("T")

ALLOWANCE = 256 * 1024
"""Bytes on the wire that a peer may send on one connection: the longest frame, a long handshake, and room to spare."""

HANDSHAKE_ALLOWANCE = 48 * 1024
"""Of them, until the handshake is done: a certificate with the two longest quotes takes 34 kB."""

MAX_RECORDS = 256
"""TLS records that a peer may send on one connection; the longest frame takes five, a handshake as many."""

_CHUNK = 16384
_HEADER = 5  # type, version, two bytes of length: RFC 8446, 5.1


class AsyncTlsStream:
    """Reads and writes exact numbers of bytes until its deadline; for one task at a time, on the loop that runs it.

    Args:
        context: a server's context of :mod:`ensconce.ratls.context`.
        sock: a connected socket; the stream owns it from now on.
        deadline: by ``time.monotonic()``; may be moved.
        allowance: bytes on the wire that the peer may send in all.
    """

    def __init__(
        self, context: SSL.Context, sock: socket.socket, *, deadline: float, allowance: int = ALLOWANCE
    ) -> None:
        self.deadline = deadline
        self._received = 0
        self._shaken = False
        self._records = 0
        # Of the record that is being received: its header so far, and how much of its content is to come.
        self._header = b""
        self._content = 0
        self._allowance = allowance
        self._socket = sock
        self._outgoing = bytearray()
        sock.setblocking(False)
        # An answer is one write after one read: Nagle's algorithm would make it wait for a delayed acknowledgement.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acknowledge()
        self.connection = SSL.Connection(context, None)
        self.connection.set_accept_state()

    async def handshake(self) -> None:
        """Do the handshake.

        Raises:
            UnreachableError: ``tls.handshake``, ``tls.closed``, ``tls.timeout``, ``tls.excess``, or what the context's
                own checks raise.
        """
        await self._until_done(self.connection.do_handshake)
        self._shaken = True

    async def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes.

        Raises:
            UnreachableError: ``tls.closed``, ``tls.timeout``, ``tls.excess``, ``tls.handshake``: the peer stopped
                before, sent more than it may, or what is not TLS.
        """
        data = bytearray()
        while len(data) < size:
            data += await self._until_done(self.connection.recv, min(size - len(data), _CHUNK))
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; it is with the kernel when this returns.

        Raises:
            UnreachableError: ``tls.closed`` or ``tls.timeout``: the peer is gone, or does not read.
        """
        view = memoryview(data)
        while view:
            view = view[await self._until_done(self.connection.send, bytes(view[:_CHUNK])) :]

    async def finish(self, patience: float = 1.0) -> None:
        """End a conversation after the last write: say goodbye, and wait briefly for the peer to hang up.

        Closing at once, while bytes of the peer lie unread, would reset the connection and could destroy the last
        message on its way.

        Args:
            patience: seconds; what the peer still sends is dropped, up to a megabyte.
        """
        self.deadline = time.monotonic() + patience
        with contextlib.suppress(SSL.Error, OSError, UnreachableError):
            with contextlib.suppress(SSL.Error):
                self.connection.shutdown()
            await self._flush()
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(64):
                if not await self._receive():
                    break
        self._socket.close()

    def close(self) -> None:
        """Say goodbye if that needs no waiting, and close the socket; does nothing the second time."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(SSL.Error, OSError):
            self.connection.shutdown()
            self._collect()
            self._socket.send(self._outgoing)
        self._socket.close()

    async def _until_done(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                result = operation(*args, **kwargs)
            except SSL.WantReadError:
                await self._flush()
                await self._fill()
            except (SSL.ZeroReturnError, SSL.SysCallError):
                raise _closed() from None
            except SSL.Error as error:
                raise UnreachableError("tls.handshake", "TLS failed", found=reasons(error)) from None
            else:
                await self._flush()
                return result

    async def _fill(self) -> None:
        data = await self._receive()
        if not data:
            raise _closed()
        self._received += len(data)
        self._count_records(data)
        allowance = self._allowance if self._shaken else min(self._allowance, HANDSHAKE_ALLOWANCE)
        if self._received > allowance:
            when = "on one connection" if self._shaken else "before the end of the handshake"
            raise _excess(f"{self._received} bytes", f"at most {allowance} bytes {when}")
        if self._records > MAX_RECORDS:
            raise _excess(f"{self._records} TLS records", f"at most {MAX_RECORDS} TLS records on one connection")
        self.connection.bio_write(data)

    def _count_records(self, data: bytes) -> None:
        while data and self._records <= MAX_RECORDS:
            if self._content:
                skipped = min(self._content, len(data))
                self._content -= skipped
                data = data[skipped:]
                continue
            missing = _HEADER - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == _HEADER:
                self._records += 1
                self._content = int.from_bytes(self._header[3:], "big")
                self._header = b""

    async def _receive(self) -> bytes:
        while True:
            try:
                data = self._socket.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_reader, loop.remove_reader)
            except OSError:
                raise _closed() from None
            else:
                self._acknowledge()
                return data

    def _acknowledge(self) -> None:
        """Acknowledge what comes next at once.

        Gramine's library writes its certificate in two parts, and Nagle's algorithm keeps back the second until the
        first is acknowledged: 40 ms, on any network. Linux takes the option back by itself, so it is set again and
        again; tcp(7).
        """
        with contextlib.suppress(OSError, AttributeError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def _flush(self) -> None:
        self._collect()
        while self._outgoing:
            try:
                del self._outgoing[: self._socket.send(self._outgoing)]
            except (BlockingIOError, InterruptedError):
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_writer, loop.remove_writer)
            except OSError:
                raise _closed() from None

    def _collect(self) -> None:
        """Take what OpenSSL wants to send; never much, since every write is flushed before the next."""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._outgoing += self.connection.bio_read(_CHUNK)

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        if not await _ready(self._socket, add, remove, self.deadline):
            raise UnreachableError("tls.timeout", "the other side took too long")


async def first_byte(sock: socket.socket, deadline: float) -> bool:
    """Wait for a peer's first byte, and leave it where it is; False when the peer leaves, or keeps silent.

    A connection that has not said anything costs a socket, and no TLS.

    Args:
        sock: a connected socket.
        deadline: by ``time.monotonic()``.
    """
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        try:
            return bool(sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, InterruptedError):
            if not await _ready(sock, loop.add_reader, loop.remove_reader, deadline):
                return False
        except OSError:
            return False


async def _ready(sock: socket.socket, add: Callable[..., Any], remove: Callable[[int], Any], deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    file = sock.fileno()
    timer = loop.call_later(left, _settle, ready, False)
    add(file, _settle, ready, True)
    try:
        return await ready
    finally:
        remove(file)
        timer.cancel()


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)


def _excess(found: str, rule: str) -> UnreachableError:
    return UnreachableError(
        "tls.excess", "the other side sends more than any conversation takes", found=found, rule=rule
    )


def _closed() -> UnreachableError:
    return UnreachableError("tls.closed", "the other side closed the connection")
