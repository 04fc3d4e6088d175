"""A TLS connection as a stream with one deadline for all that is done on it.

A deadline rather than a timeout per read: a peer that sends one byte a second never lets a timeout pass.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from OpenSSL import SSL

from ensconce.errors import UnreachableError
from ensconce.ratls.buffers import Outbox

__all__ = ["TlsStream", "reasons"]

P = ParamSpec("P")
T = TypeVar("T")

_RECORD = 16384
_CHUNK = 128 * 1024


class TlsStream:
    """Reads and writes exact numbers of bytes until its deadline; for one thread at a time.

    Args:
        context: a context of :mod:`ensconce.ratls.context`.
        sock: a connected socket; the stream owns it from now on.
        server_name: the name to ask for (SNI), which makes this the client's end.
        deadline: by ``time.monotonic()``.
    """

    def __init__(
        self, context: SSL.Context, sock: socket.socket, *, deadline: float, server_name: str | None = None
    ) -> None:
        self.deadline = deadline
        self._socket = sock
        self._arrived = memoryview(bytearray(_CHUNK))
        self._outbox = Outbox()
        # What was taken from there and is not sent yet.
        self._unsent = self._arrived[:0]
        sock.setblocking(False)
        # A request is one write after one read: Nagle's algorithm would make it wait for a delayed acknowledgement.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = SSL.Connection(context, None)
        if server_name is None:
            self.connection.set_accept_state()
        else:
            self.connection.set_tlsext_host_name(server_name.encode("ascii"))
            self.connection.set_connect_state()

    def __enter__(self) -> TlsStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def handshake(self) -> None:
        """Do the handshake.

        Raises:
            UnreachableError: ``tls.handshake``, ``tls.closed`` or ``tls.timeout``.
        """
        self._until_done(self.connection.do_handshake)

    def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes.

        Raises:
            UnreachableError: ``tls.closed`` or ``tls.timeout``: the peer stopped before, or sent what is not TLS.
        """
        data = bytearray()
        while len(data) < size:
            data += self._until_done(self.connection.recv, min(size - len(data), _RECORD))
        return bytes(data)

    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            UnreachableError: ``tls.closed`` or ``tls.timeout``: the peer is gone, or does not read.
        """
        view = memoryview(data)
        while view:
            view = view[self._until_done(self.connection.send, bytes(view[:_RECORD])) :]

    def fileno(self) -> int:
        """The socket's descriptor, for poll(2)."""
        return self._socket.fileno()

    def pull(self) -> bool:
        """Hand OpenSSL what has arrived, without waiting; False where nothing has.

        Raises:
            OSError: the other side has ended the connection, without a goodbye if there was none to read.
        """
        try:
            count = self._socket.recv_into(self._arrived)
        except (BlockingIOError, InterruptedError):
            return False
        if not count:
            raise ConnectionResetError
        self.connection.bio_write(self._arrived[:count])
        return True

    def push(self) -> bool:
        """Send what OpenSSL has to send, without waiting; False while some of it is left.

        Raises:
            OSError: the connection has ended.
        """
        while self._unsent or (unsent := self._outbox.part(self.connection)):
            self._unsent = self._unsent or unsent
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except (BlockingIOError, InterruptedError):
                return False
        return True

    def finish(self, patience: float = 1.0) -> None:
        """End a conversation after the last write: say goodbye, and wait briefly for the peer to hang up.

        Closing at once, while bytes of the peer lie unread, would reset the connection and could destroy the last
        message on its way.

        Args:
            patience: seconds; what the peer still sends is dropped, up to a megabyte.
        """
        with contextlib.suppress(SSL.Error, OSError):
            self.connection.shutdown()
            self.push()
        end = time.monotonic() + patience
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(64):
                if not poll.poll(max(0.0, end - time.monotonic()) * 1000) or not self._socket.recv(16384):
                    break
        self._socket.close()

    def close(self) -> None:
        """Say goodbye if that needs no waiting, and close the socket; does nothing the second time."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(SSL.Error, OSError):
            self.connection.shutdown()
            self.push()
        self._socket.close()

    def _until_done(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                result = operation(*args, **kwargs)
            except SSL.WantReadError:
                self._until_sent()
                self._until_arrived()
            except SSL.ZeroReturnError:
                raise _closed() from None
            except SSL.Error as error:
                with contextlib.suppress(OSError):
                    self.push()  # the alert
                raise UnreachableError("tls.handshake", "TLS failed", found=reasons(error)) from None
            else:
                self._until_sent()
                return result

    def _until_sent(self) -> None:
        try:
            while not self.push():
                self._wait(select.POLLOUT)
        except OSError:
            raise _closed() from None

    def _until_arrived(self) -> None:
        try:
            while not self.pull():
                self._wait(select.POLLIN)
        except OSError:
            raise _closed() from None

    def _wait(self, event: int) -> None:
        left = self.deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise UnreachableError("tls.timeout", "the other side took too long")


def _closed() -> UnreachableError:
    return UnreachableError("tls.closed", "the other side closed the connection")


def reasons(error: SSL.Error) -> str | None:
    """OpenSSL's own words for what went wrong: the alert that came, or what it did not like."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0] if entry[-1])[:200] or None
    return None
