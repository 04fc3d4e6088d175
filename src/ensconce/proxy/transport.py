"""An attested connection as a transport of asyncio's: its bytes are moved by the event loop, without a tunnel's thread.

The tunnel opens it, has it judged, and learns of its end; only the way of its bytes is another. For images of 600 kB a
local socket and a thread between took 2 % of the time of a ResNet-50.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from OpenSSL import SSL

from ensconce.client.attested import AttestedSocket
from ensconce.client.tunnel import Tunnel
from ensconce.errors import EnsconceError
from ensconce.ratls.buffers import read_into, write
from ensconce.times import since_boot

__all__ = ["AttestedTransport", "open_through"]

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BufferedProtocol)

_log = logging.getLogger(__name__)

_RECORD: Final = 16 * 1024


async def open_through(tunnel: Tunnel, threads: Executor, make: Callable[[], ProtocolT]) -> ProtocolT:
    """A connection through a tunnel.

    Args:
        tunnel: started.
        threads: where it connects.
        make: makes what speaks.

    Raises:
        ConnectionError: there is none to be had; the tunnel knows why.
    """
    opening = asyncio.get_running_loop().run_in_executor(threads, tunnel.attest)
    try:
        attested = await asyncio.shield(opening)
    except EnsconceError:
        raise ConnectionError from None
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: _discard(tunnel, done))
        raise
    try:
        connection = make()
        AttestedTransport(attested, connection, lambda is_remote: tunnel.ended(is_remote=is_remote))
    except BaseException:
        _discard(tunnel, opening)
        raise
    return connection


def _discard(tunnel: Tunnel, done: asyncio.Future[AttestedSocket]) -> None:
    """Nobody waits for it any more."""
    if not done.cancelled() and done.exception() is None:
        done.result().close()
        tunnel.ended(is_remote=False)


class AttestedTransport(asyncio.Transport):
    """Writes are encrypted at once; while the system takes nothing, the protocol is paused.

    Args:
        attested: accepted, and not read from.
        protocol: what speaks; it is connected before this returns.
        ended: told when it is over, and whether the other side ended it.
    """

    def __init__(
        self, attested: AttestedSocket, protocol: asyncio.BufferedProtocol, ended: Callable[[bool], object]
    ) -> None:
        super().__init__()
        self._stream, self._protocol, self._ended = attested.tls, protocol, ended
        self._loop = asyncio.get_running_loop()
        self._number = self._stream.fileno()
        self._is_closing = self._is_over = self._is_blocked = False
        # What it was accepted for ends, whatever is under way; the loop's clock may have stood still in between.
        self._until = attested.deadline
        self._deadline = self._loop.call_later(attested.deadline - since_boot(), self._end, True)
        protocol.connection_made(self)
        if self._is_over:
            return
        self._loop.add_reader(self._number, self._on_readable)
        # Some of it may have come with the handshake.
        self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """What the protocol writes at once is the limit: nothing more is taken until it is sent."""

    def get_write_buffer_size(self) -> int:
        """Whether something waits to be sent."""
        return int(self._is_blocked)

    def is_closing(self) -> bool:
        """Whether it is over, or will be when all is sent."""
        return self._is_closing

    def can_write_eof(self) -> bool:
        """TLS ends both ways at once."""
        return False

    def write(self, data: Any) -> None:
        """Encrypt and send."""
        if self._is_closing or not data or self._is_late():
            return
        try:
            write(self._stream.connection, data, len(data))
        except SSL.Error:
            self._end(True)
            return
        if not self._is_blocked:
            self._push()

    def close(self) -> None:
        """End it when all is sent."""
        if not self._is_closing:
            self._is_closing = True
            if not self._is_blocked:
                self._end(False)

    def abort(self) -> None:
        """End it now."""
        self._end(False)

    def _push(self) -> None:
        try:
            is_sent = self._stream.push()
        except OSError:
            self._end(True)
            return
        if is_sent is not self._is_blocked:
            return
        self._is_blocked = not is_sent
        if not is_sent:
            self._loop.add_writer(self._number, self._push)
            self._protocol.pause_writing()
            return
        self._loop.remove_writer(self._number)
        if self._is_closing:
            self._end(False)
        else:
            self._protocol.resume_writing()

    def _is_late(self) -> bool:
        late = since_boot() >= self._until
        if late:
            self._end(True)
        return late

    def _on_readable(self) -> None:
        if self._is_late():
            return
        try:
            self._stream.pull()
        except OSError:
            # What came before may be whole records.
            self._deliver()
            self._end(True)
            return
        self._deliver()

    def _deliver(self) -> None:
        """Give the protocol what has been decrypted."""
        connection = self._stream.connection
        is_ended = False
        while not self._is_over and not is_ended:
            buffer, count = memoryview(self._protocol.get_buffer(-1)), 0
            try:
                while len(buffer) - count >= _RECORD:
                    count += read_into(connection, buffer[count:], len(buffer) - count)
            except SSL.WantReadError:
                is_full = False
            except SSL.Error:
                is_full, is_ended = False, True
            else:
                is_full = True
            if count:
                try:
                    self._protocol.buffer_updated(count)
                except Exception:
                    # As asyncio's own transports: who waits for an answer would wait for ever.
                    _log.error("what a replica said was handled in a way that nobody foresaw", exc_info=True)
                    self._end(False)
            if not is_full:
                break
        if is_ended:
            self._end(True)
        elif not self._is_over and not self._is_blocked:
            self._push()  # an answer of TLS's own, such as to a new key

    def _end(self, is_remote: bool) -> None:
        if self._is_over:
            return
        self._is_over = self._is_closing = True
        self._deadline.cancel()
        self._loop.remove_reader(self._number)
        self._loop.remove_writer(self._number)
        self._stream.close()
        self._ended(is_remote)
        self._loop.call_soon(self._protocol.connection_lost, None)
