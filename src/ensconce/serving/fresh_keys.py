"""Quotes over the sealing key, for clients behind a balancer: one for all that ask while the one before is made.

There nobody can be told apart, so that no quota of each client's would hold; and a quote for each question would let
one stranger keep all others from theirs. So a quote covers every nonce that is there when it is begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from cryptography import x509

from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import NONCE_SIZE, sealing_binding
from ensconce.ratls.sealing import MOST_NONCES, Statement
from ensconce.serving.quotes import Quotes
from ensconce.serving.sealing import Sealing
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["FreshKeys"]

_EVERY_S: Final = 1.0
"""Seconds between the beginnings of two quotes: a platform takes up to a tenth of a second for one."""


class FreshKeys:
    """Answers the question for the key. For one event loop."""

    def __init__(
        self,
        sealing: Sealing,
        quotes: Quotes | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            sealing: has the key.
            quotes: makes quotes; without, there are none.
            clock: in seconds.
            sleep: lets seconds pass.
        """
        self._sealing, self._quotes, self._clock, self._sleep = sealing, quotes, clock, sleep
        self._gathering: dict[bytes, None] = {}
        self._next: asyncio.Task[Statement] | None = None
        self._latest: asyncio.Task[Statement] | None = None
        self._not_before = clock()

    async def statement(self, nonce: bytes) -> Statement:
        """What clients judge before they seal; with a quote over the key and a client's nonce, if it sent one.

        Raises:
            RequestError: INVALID_ARGUMENT: the nonce is none; RESOURCE_EXHAUSTED: too many ask; UNIMPLEMENTED: there
                are no quotes; UNAVAILABLE: the platform makes none now.
        """
        if not nonce:
            return self._sealing.statement
        if self._quotes is None:
            raise RequestError(Code.UNIMPLEMENTED, "This server makes no quotes")
        if len(nonce) != NONCE_SIZE:
            raise RequestError(Code.INVALID_ARGUMENT, f"The nonce must have {NONCE_SIZE} bytes")
        if len(self._gathering) >= MOST_NONCES and nonce not in self._gathering:
            raise RequestError(Code.RESOURCE_EXHAUSTED, "Too many wait for quotes")
        self._gathering[nonce] = None
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._make(self._quotes, self._latest))
        # Whoever gives up does not take the others' quote along.
        return await asyncio.shield(self._next)

    async def _make(self, quotes: Quotes, before: asyncio.Task[Statement] | None) -> Statement:
        if before is not None:
            await asyncio.wait((before,))
        wait = self._not_before - self._clock()
        if wait > 0:
            await self._sleep(wait)
        # From here on others gather for the next.
        self._not_before = self._clock() + _EVERY_S
        nonces, self._gathering = b"".join(self._gathering), {}
        self._latest, self._next = self._next, None
        statement = self._sealing.statement
        spki = spki_of(x509.load_der_x509_certificate(statement.certificate).public_key())
        report_data = sealing_binding(nonces=nonces, key=statement.key, server_spki=spki)
        return replace(statement, quote=await quotes.make(report_data), nonces=nonces)
