"""Appraises off the event loop: collateral in threads, which may wait for the network; verification where the server's
maker says, best in processes; the policy's word on the loop, where it costs nothing."""

from __future__ import annotations

import os

from ensconce.appraisal.appraiser import Appraiser, Case, Verify
from ensconce.appraisal.collateral import PlatformKind
from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EnsconceError
from ensconce.evidence.quote import parse_quote
from ensconce.provisioning.lane import Lane
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.threads import Threads

__all__ = ["Appraisals"]

_COLLATERAL_THREADS = 16
_THREADS_FOR_ONE_KIND = 4
_PATIENCE = 2.0  # a PCCS that has to ask the vendor takes a second


class Appraisals:
    """Appraises for all connections of a server.

    Args:
        verify: verifies one quote; called in as many threads as this machine has processors.
        metrics: where the time goes.
        waiters: how many may wait for collateral of one kind of platform that does not come.
    """

    def __init__(self, verify: Verify, metrics: Metrics, waiters: int) -> None:
        self._verify = verify
        self._metrics = metrics
        self._waiters = waiters
        self._lanes: dict[PlatformKind, Lane] = {}
        self._collateral = Threads(_COLLATERAL_THREADS, "provisioning collateral")
        self._verification = Threads(os.cpu_count() or 1, "provisioning verification")

    async def appraise(self, quote: bytes, appraiser: Appraiser) -> Acceptance:
        """:meth:`ensconce.appraisal.appraiser.Appraiser.appraise`, each step in its place.

        Raises:
            UnreachableError: also ``provisioning.busy``: too many wait for collateral of this kind of platform.
        """
        with self._metrics.timed("collateral"):
            case = await self._gather(quote, appraiser)
        with self._metrics.timed("verification"):
            verdict = await self._verification.run(appraiser.verify, case, self._verify)
        return appraiser.policy.judge(verdict)

    async def _gather(self, quote: bytes, appraiser: Appraiser) -> Case:
        """Keep quotes of one kind of platform, whose collateral may be out of reach, from taking all threads."""
        try:
            kind = PlatformKind.of(parse_quote(quote))
        except EnsconceError:
            # Gathering will say what is wrong, and will not wait for anything.
            return await self._collateral.run(appraiser.gather, quote)
        lane = self._lanes.setdefault(kind, Lane(_THREADS_FOR_ONE_KIND, self._waiters, _PATIENCE))

        def ended() -> None:
            if lane.idle and self._lanes.get(kind) is lane:
                del self._lanes[kind]

        return await lane.run(lambda: self._collateral.run(appraiser.gather, quote), ended)

    def close(self) -> None:
        """Let the threads end."""
        self._collateral.close()
        self._verification.close()
