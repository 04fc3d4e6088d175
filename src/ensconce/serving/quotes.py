"""Quotes for clients that want to know who is there now, each bound to the client's nonce and its TLS channel.

A quote takes the platform up to a tenth of a second, which strangers can ask for: one is made at a time, few may wait,
and a connection gets one now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from weakref import WeakKeyDictionary

from OpenSSL import SSL

from ensconce.errors import EnsconceError
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.ratls.freshness import server_report_data
from ensconce.serving.tls_object import TlsObject
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["Quotes"]

_MOST_WAITING: Final = 64
_EVERY_S: Final = 10.0


class Quotes:
    """Makes them. For one event loop."""

    def __init__(self, quote: Callable[[bytes], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare.

        Args:
            quote: a quote of this enclave over 64 bytes of report data, see :class:`ensconce.platform.Platform`.
            clock: in seconds.
        """
        self._quote, self._clock = quote, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quotes")
        self._waiting = 0
        self._latest: WeakKeyDictionary[TlsObject, float] = WeakKeyDictionary()

    async def over(self, channel: TlsObject | None, nonce: bytes) -> bytes:
        """A quote over a client's nonce and its channel.

        Raises:
            RequestError: INVALID_ARGUMENT: no nonce; FAILED_PRECONDITION: this is no channel of TLS 1.3;
                RESOURCE_EXHAUSTED: too many; UNAVAILABLE: the platform makes none now.
        """
        if len(nonce) != NONCE_SIZE:
            raise RequestError(Code.INVALID_ARGUMENT, f"The nonce must have {NONCE_SIZE} bytes")
        if channel is None or channel.connection.get_protocol_version() != SSL.TLS1_3_VERSION:
            raise RequestError(Code.FAILED_PRECONDITION, "Quotes are bound to a channel of TLS 1.3, which this is not")
        now = self._clock()
        if now - self._latest.get(channel, float("-inf")) < _EVERY_S:
            raise RequestError(Code.RESOURCE_EXHAUSTED, f"A connection gets one quote in {_EVERY_S:g} seconds")
        if self._waiting >= _MOST_WAITING:
            raise RequestError(Code.RESOURCE_EXHAUSTED, "Too many wait for quotes")
        self._latest[channel] = now
        return await self.make(server_report_data(channel.connection, nonce))

    async def make(self, report_data: bytes) -> bytes:
        """A quote over 64 bytes that the caller answers for; whoever asks is bounded by the caller, too.

        Raises:
            RequestError: UNAVAILABLE: the platform makes none now.
        """
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._quote, report_data)
        except EnsconceError as error:
            # Not its text, which may tell of the platform.
            raise RequestError(Code.UNAVAILABLE, f"The platform makes no quote now [{error.check}]") from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Make no more; what waits is not made."""
        self._thread.shutdown(wait=False, cancel_futures=True)
