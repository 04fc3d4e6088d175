"""Passes bytes between a local socket and an attested connection, both ways, until one side ends or time is up.

One thread and one poll for both directions: OpenSSL's object for a connection must not be used by two threads at once.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time

__all__ = ["pump"]

_CHUNK = 256 * 1024
# Longer than poll(2) can count is not waited at once.
_LONGEST_WAIT_S = 3600.0


def pump(local: socket.socket, tls: ssl.SSLSocket, deadline: float) -> None:
    """Run until either side has ended and its last bytes are delivered, or until ``deadline`` by ``time.monotonic()``.

    Both sockets are made non-blocking; closing them is the caller's. A shutdown of ``local`` from another thread
    ends it.
    """
    local.setblocking(False)
    tls.setblocking(False)
    outwards, inwards = _Direction(), _Direction()
    while (left := deadline - time.monotonic()) > 0:
        moved = False
        if not outwards.pending and not outwards.ended:
            moved |= outwards.read(local)
        if not inwards.pending and not inwards.ended:
            moved |= inwards.read(tls)
        if outwards.pending:
            moved |= outwards.write(tls)
        if inwards.pending:
            moved |= inwards.write(local)
        if (outwards.ended and not outwards.pending) or (inwards.ended and not inwards.pending):
            return
        if not moved:
            _wait(local, tls, outwards, inwards, min(left, _LONGEST_WAIT_S))


class _Direction:
    """Bytes read from one side and not yet written to the other: one chunk at most."""

    def __init__(self) -> None:
        self.pending = memoryview(b"")
        self.ended = False
        self.wants = 0

    def read(self, source: socket.socket) -> bool:
        self.wants = select.POLLIN
        try:
            self.pending = memoryview(source.recv(_CHUNK))
        except ssl.SSLWantWriteError:
            self.wants = select.POLLOUT
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            # A reset, or an end without close_notify; HTTP's own framing tells the reader that something is missing.
            self.ended = True
            return True
        self.ended = not self.pending
        return True

    def write(self, sink: socket.socket) -> bool:
        self.wants = select.POLLOUT
        try:
            sent = sink.send(self.pending)
        except ssl.SSLWantReadError:
            self.wants = select.POLLIN
            return False
        except (BlockingIOError, ssl.SSLWantWriteError):
            return False
        except OSError:
            self.pending, self.ended = memoryview(b""), True
            return True
        self.pending = self.pending[sent:]
        return True


def _wait(local: socket.socket, tls: ssl.SSLSocket, outwards: _Direction, inwards: _Direction, seconds: float) -> None:
    """Sleep until something can move. A side from which nothing is wanted is not watched: its hang-up would not end."""
    wanted = {local.fileno(): 0, tls.fileno(): 0}
    for direction, source, sink in ((outwards, local, tls), (inwards, tls, local)):
        if direction.pending:
            wanted[sink.fileno()] |= direction.wants
        elif not direction.ended:
            wanted[source.fileno()] |= direction.wants
    poll = select.poll()
    for number, events in wanted.items():
        if events:
            poll.register(number, events)
    with contextlib.suppress(InterruptedError):
        poll.poll(seconds * 1000)
