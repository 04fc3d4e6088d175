"""The first words on a connection: a quote where the client asked for one by ALPN, and then the protocol proper."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ensconce.errors import place_of
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.ratls.freshness import FRESH, answer
from ensconce.tfserving.refusal import RequestError

if TYPE_CHECKING:
    from ensconce.serving.quotes import Quotes

__all__ = ["Opening"]

_log = logging.getLogger(__name__)


class Opening(asyncio.Protocol):
    """Takes a connection after its TLS handshake, and hands it on."""

    def __init__(self, connection: Callable[[], asyncio.BaseProtocol], quotes: Quotes) -> None:
        """Prepare.

        Args:
            connection: makes the protocol proper.
            quotes: makes quotes.
        """
        self._connection, self._quotes = connection, quotes
        self._said = bytearray()
        self._is_said = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tls = transport.get_extra_info("ssl_object")
        if self._tls.selected_alpn_protocol() not in FRESH.values():
            self._is_said.cancel()
            self._hand_over()

    def data_received(self, data: bytes) -> None:
        """Some of the nonce. Whoever says more does not wait for the answer, and so cannot have judged it."""
        self._said += data
        if len(self._said) > NONCE_SIZE:
            self._transport.abort()
        elif len(self._said) == NONCE_SIZE:
            self._is_said.set_result(None)

    def connection_lost(self, _exception: Exception | None) -> None:
        """The client has gone."""
        self._is_said.cancel()

    async def finish(self, timeout: float) -> None:
        """Answer within ``timeout`` seconds, or end the connection."""
        if self._is_said.cancelled():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._is_said
                quote = await self._quotes.over(self._tls, bytes(self._said))
        except (TimeoutError, asyncio.CancelledError):
            self._transport.abort()
        except Exception as error:  # what makes quotes may fail in ways of its own
            if not isinstance(error, RequestError):
                # Not its text: the log is the host's.
                _log.error("making a quote failed: %s at %s", type(error).__name__, place_of(error))
            self._transport.write(answer(b""))
            self._transport.close()
        else:
            if not self._transport.is_closing():
                self._transport.write(answer(quote))
                self._hand_over()

    def _hand_over(self) -> None:
        protocol = self._connection()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
