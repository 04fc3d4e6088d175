"""Passes bytes between a local socket and an attested connection, both ways, until one side ends or time is up.

One thread and one poll for both directions: OpenSSL's object for a connection must not be used by two threads at once.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from enum import Enum

from OpenSSL import SSL

from ensconce.ratls.buffers import read_into, write
from ensconce.ratls.stream import TlsStream
from ensconce.times import since_boot

__all__ = ["End", "pump"]

_CHUNK = 128 * 1024
_RECORD = 16 * 1024
# Longer than poll(2) can count is not waited at once.
_LONGEST_WAIT_S = 3600.0


class End(Enum):
    """Who ended it."""

    LOCAL = 1
    REMOTE = 2
    TIME = 3


def pump(local: socket.socket, tls: TlsStream, deadline: float, said: bytes = b"") -> End:
    """Run until either side has ended and its last bytes are delivered, or until ``deadline``.

    The deadline is by :func:`ensconce.times.since_boot`; not a byte is moved behind it. The local socket is made
    non-blocking; closing both sides is the caller's. A shutdown of ``local`` from another thread ends it.

    Args:
        local: where it comes from.
        tls: where it goes.
        deadline: see above.
        said: what was read from ``tls`` already; it comes first.
    """
    local.setblocking(False)
    outwards = _Direction(local.recv_into, lambda data: _write(tls, data))
    inwards = _Direction(lambda buffer: _read(tls, buffer), local.send, said)
    while (left := deadline - since_boot()) > 0:
        moved = outwards.move() | inwards.move()
        if (outwards.is_over and _is_sent(tls)) or inwards.is_stuck:
            return End.LOCAL
        if inwards.is_over:
            return End.REMOTE
        if not moved:
            _wait(local, tls, outwards, inwards, min(left, _LONGEST_WAIT_S))
    return End.TIME


class _Direction:
    """Bytes read from one side and not yet written to the other: one chunk at most."""

    def __init__(
        self, read: Callable[[memoryview], int], write: Callable[[memoryview], int], said: bytes = b""
    ) -> None:
        self._read, self._write = read, write
        self._buffer = memoryview(bytearray(_CHUNK))
        self.pending = memoryview(said)
        self._ended = False
        self.is_stuck = False
        """The side that is written to takes nothing any more; what it said still counts, the answers of a replica."""
        self.wants = 0
        """What poll(2) is to wait for, at the side that is to be read from or, while bytes are pending, written to."""

    @property
    def is_over(self) -> bool:
        """The side that is read from has ended, and all that it said is delivered."""
        return self._ended and not self.pending and not self.is_stuck

    def move(self) -> bool:
        """Read or write what is possible now; whether there was anything."""
        moved = False
        if not self.pending and not self._ended:
            moved = self._try(select.POLLIN, self._fill)
        if self.pending:
            moved |= self._try(select.POLLOUT, self._drain)
        return moved

    def _fail(self) -> None:
        self.is_stuck = bool(self.pending)
        self.pending, self._ended = self._buffer[:0], True

    def _fill(self) -> None:
        self.pending = self._buffer[: self._read(self._buffer)]
        self._ended = not self.pending

    def _drain(self) -> None:
        self.pending = self.pending[self._write(self.pending) :]

    def _try(self, wants: int, step: Callable[[], None]) -> bool:
        try:
            step()
        except SSL.WantReadError:
            self.wants = select.POLLIN
            return False
        except SSL.WantWriteError:
            self.wants = select.POLLOUT
            return False
        except BlockingIOError:
            self.wants = wants
            return False
        except (OSError, SSL.Error):
            # A reset, or an end without close_notify: to the reader it is an end like any. HTTP/2's framing tells that
            # something is missing, HTTP/1's where there is any (check_framed in transport).
            self._fail()
        return True


def _write(tls: TlsStream, data: memoryview) -> int:
    """Everything, once all that was written before is with the system."""
    if not tls.push():
        raise SSL.WantWriteError
    count = write(tls.connection, data, len(data))
    tls.push()
    return count


def _read(tls: TlsStream, buffer: memoryview) -> int:
    """As many records as are here and find room; 0 at the end."""
    count = 0
    try:
        while len(buffer) - count >= _RECORD:
            try:
                count += read_into(tls.connection, buffer[count:], len(buffer) - count)
            except SSL.WantReadError:
                if not tls.pull():
                    break
    except SSL.ZeroReturnError:
        return count
    except (OSError, SSL.Error):
        if not count:
            raise
    if not count:
        raise SSL.WantReadError
    return count


def _is_sent(tls: TlsStream) -> bool:
    """Whether all that was written is with the system; also when it never will be."""
    try:
        return tls.push()
    except OSError:
        return True


def _wait(local: socket.socket, tls: TlsStream, outwards: _Direction, inwards: _Direction, seconds: float) -> None:
    """Sleep until something can move. A side from which nothing is wanted is not watched: its hang-up would not end."""
    wanted = {local.fileno(): 0, tls.fileno(): 0}
    for direction, source, sink in ((outwards, local, tls), (inwards, tls, local)):
        if direction.is_over or direction.is_stuck:
            continue
        wanted[sink.fileno() if direction.pending else source.fileno()] |= direction.wants
    if not _is_sent(tls):
        wanted[tls.fileno()] |= select.POLLOUT
    poll = select.poll()
    for number, events in wanted.items():
        if events:
            poll.register(number, events)
    with contextlib.suppress(InterruptedError):
        poll.poll(seconds * 1000)
