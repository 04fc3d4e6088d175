"""Appraises off the event loop: collateral in threads, which may wait for the network; verification where the server's
maker says, best in processes; the policy's word on the loop, where it costs nothing."""

from __future__ import annotations

import os

from ensconce.appraisal.appraiser import Appraiser, Verify
from ensconce.appraisal.policy import Acceptance
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.threads import Threads

__all__ = ["Appraisals"]

_COLLATERAL_THREADS = 16


class Appraisals:
    """Appraises for all connections of a server.

    Args:
        verify: verifies one quote; called in as many threads as this machine has processors.
        metrics: where the time goes.
    """

    def __init__(self, verify: Verify, metrics: Metrics) -> None:
        self._verify = verify
        self._metrics = metrics
        self._collateral = Threads(_COLLATERAL_THREADS, "provisioning collateral")
        self._verification = Threads(os.cpu_count() or 1, "provisioning verification")

    async def appraise(self, quote: bytes, appraiser: Appraiser) -> Acceptance:
        """:meth:`ensconce.appraisal.appraiser.Appraiser.appraise`, each step in its place."""
        with self._metrics.timed("collateral"):
            case = await self._collateral.run(appraiser.gather, quote)
        with self._metrics.timed("verification"):
            verdict = await self._verification.run(appraiser.verify, case, self._verify)
        return appraiser.policy.judge(verdict)

    def close(self) -> None:
        """Let the threads end."""
        self._collateral.close()
        self._verification.close()
