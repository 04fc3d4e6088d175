"""The server's end of a TLS connection in memory, by pyOpenSSL, as asyncio drives Python's own ``ssl.SSLObject``.

asyncio (``asyncio/sslproto.py``) puts what arrives into one ``ssl.MemoryBIO`` and sends what it finds in another, and
knows the exceptions of ``ssl``. Only what it calls is here.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from OpenSSL import SSL

from ensconce.ratls.buffers import Bytes, Outbox, read_into, write

__all__ = ["TlsObject"]

T = TypeVar("T")

# A client may ask for new keys (RFC 8446, section 4.6.3) as often as it likes, and take no answer: 27 bytes each.
_MOST_ANSWERS = 16 * 1024


class TlsObject:
    """One connection.

    Attributes:
        connection: for those who need to know more of it.
    """

    def __init__(self, context: SSL.Context, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, outbox: Outbox) -> None:
        """Wait for a client.

        Args:
            context: a server's.
            incoming: what arrives is put there.
            outgoing: what is to be sent is taken from there.
            outbox: lent by a server to its connections, all of one thread.
        """
        self._outbox = outbox
        self.connection = SSL.Connection(context, None)
        self.connection.set_accept_state()
        self._incoming, self._outgoing = incoming, outgoing
        self._answered = 0

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            ssl.SSLWantReadError: more has to arrive.
            ssl.SSLError: it has failed.
        """
        self._done(self.connection.do_handshake)

    def read(self, size: int, buffer: bytearray | memoryview | None = None) -> Any:
        """Read at most ``size`` bytes: their number into ``buffer`` (0 at the end), or without one the bytes.

        Raises:
            ssl.SSLWantReadError: more has to arrive.
            ssl.SSLError: what has arrived is not TLS, or not whole, or asks too often for new keys.
        """
        own = bytearray(size) if buffer is None else buffer
        try:
            if self._incoming.pending:
                self._feed()
            count = read_into(self.connection, own, size)
        except SSL.ZeroReturnError:
            count = 0
        except SSL.Error as error:
            raise _translated(error) from None
        finally:
            self._answer()
        return count if buffer is not None else bytes(own[:count])

    def write(self, data: Bytes) -> int:
        """Write all of ``data``.

        Raises:
            ssl.SSLError: the connection is over.
        """
        size = len(data)
        try:
            if size:
                size = write(self.connection, data, size)
        except SSL.Error as error:
            raise _translated(error) from None
        self._flush()
        return size

    def unwrap(self) -> None:
        """Say goodbye, and wait for the other side's.

        Raises:
            ssl.SSLWantReadError: it has not arrived.
            ssl.SSLError: it did not come.
        """
        if not self._done(self.connection.shutdown):
            self._done(self.connection.shutdown)

    def getpeercert(self) -> None:
        """Nobody asks who the client is."""

    def cipher(self) -> str | None:
        """The cipher suite's name."""
        return self.connection.get_cipher_name()

    def compression(self) -> None:
        """There is none."""

    def selected_alpn_protocol(self) -> str:
        """What was agreed on (ALPN); empty where nothing was."""
        return self.connection.get_alpn_proto_negotiated().decode("ascii")

    def _done(self, step: Callable[[], T]) -> T:
        self._feed()
        try:
            return step()
        except SSL.Error as error:
            raise _translated(error) from None
        finally:
            self._flush()

    def _feed(self) -> None:
        data = self._incoming.read()
        if data:
            self.connection.bio_write(data)

    def _answer(self) -> None:
        """Send what reading gave rise to: an alert, or the answer to an update of keys."""
        before = self._outgoing.pending
        self._flush()
        self._answered += self._outgoing.pending - before
        if self._answered > _MOST_ANSWERS:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the other side asks for new keys too often")

    def _flush(self) -> None:
        self._outbox.take(self.connection, self._outgoing.write)


def _translated(error: SSL.Error) -> ssl.SSLError:
    if isinstance(error, SSL.WantReadError):
        return ssl.SSLWantReadError()
    if isinstance(error, SSL.ZeroReturnError):
        return ssl.SSLZeroReturnError()
    return ssl.SSLError(ssl.SSL_ERROR_SSL, "the other side does not speak TLS as it should")
