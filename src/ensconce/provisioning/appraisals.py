"""Appraises off the event loop: collateral in threads, which may wait for the network; verification where the server's
maker says, best in processes; the policy's word on the loop, where it costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ensconce.appraisal.appraiser import Appraiser, Verify
from ensconce.appraisal.collateral import PlatformKind
from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EnsconceError
from ensconce.evidence.quote import parse_quote
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.threads import Threads

__all__ = ["Appraisals"]

_COLLATERAL_THREADS = 16
_THREADS_FOR_ONE_KIND = 4


@dataclass
class _Lane:
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_THREADS_FOR_ONE_KIND))
    users: int = 0


class Appraisals:
    """Appraises for all connections of a server.

    Args:
        verify: verifies one quote; called in as many threads as this machine has processors.
        metrics: where the time goes.
    """

    def __init__(self, verify: Verify, metrics: Metrics) -> None:
        self._verify = verify
        self._metrics = metrics
        self._lanes: dict[PlatformKind, _Lane] = {}
        self._collateral = Threads(_COLLATERAL_THREADS, "provisioning collateral")
        self._verification = Threads(os.cpu_count() or 1, "provisioning verification")

    async def appraise(self, quote: bytes, appraiser: Appraiser) -> Acceptance:
        """:meth:`ensconce.appraisal.appraiser.Appraiser.appraise`, each step in its place."""
        with self._metrics.timed("collateral"):
            async with self._turn(quote):
                case = await self._collateral.run(appraiser.gather, quote)
        with self._metrics.timed("verification"):
            verdict = await self._verification.run(appraiser.verify, case, self._verify)
        return appraiser.policy.judge(verdict)

    @contextlib.asynccontextmanager
    async def _turn(self, quote: bytes) -> AsyncIterator[None]:
        """Keep quotes of one kind of platform, whose collateral may be out of reach, from taking all threads."""
        try:
            kind = PlatformKind.of(parse_quote(quote))
        except EnsconceError:
            yield  # gathering will say what is wrong, and will not wait for anything
            return
        lane = self._lanes.setdefault(kind, _Lane())
        lane.users += 1
        try:
            async with lane.turns:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[kind]

    def close(self) -> None:
        """Let the threads end."""
        self._collateral.close()
        self._verification.close()
