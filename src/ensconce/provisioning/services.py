"""What a session of either protocol needs of the server, one for each connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EnsconceError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.provisioning.appraisals import Appraisals
from ensconce.provisioning.metrics import Metrics, Wire
from ensconce.provisioning.rates import TokenBuckets
from ensconce.provisioning.recorder import Recorder
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Prepared, Release, refusal
from ensconce.provisioning.threads import Threads

__all__ = ["Services", "too_often"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """Services for one connection.

    Attributes:
        in_force: gives the appraiser in force now.
        appraisals: does its work.
        release: reads keys and issues certificates; it blocks, so call it through ``threads``.
        threads: for what blocks.
        recorder: the log; what it has not recorded is not sent.
        noise: how many failures of strangers before any evidence are recorded.
        doubts: how many refusals of evidence are recorded; apart, so that noise cannot hide them.
        hurry: how many refusals of accepted enclaves that ask too often are recorded.
        identities: how often each identity may ask.
        metrics: counts.
        exchange_time: seconds for everything after the handshake.
    """

    in_force: Callable[[], Appraiser]
    appraisals: Appraisals
    release: Release
    threads: Threads
    recorder: Recorder
    noise: RefusalBudget
    doubts: RefusalBudget
    hurry: RefusalBudget
    identities: TokenBuckets
    metrics: Metrics
    exchange_time: float

    async def appraise(self, appraiser: Appraiser, quote: bytes) -> Acceptance:
        """Appraise a quote, within the time of an exchange.

        Args:
            appraiser: one for all quotes of a request, so that they are accepted as the same identity.
            quote: as it came.

        Raises:
            UnreachableError: ``provisioning.timeout``: it takes longer than an exchange may, mostly for collateral;
                ``provisioning.rate``: it claims to be an identity that has been answered too often as it is.
            EnsconceError: as :meth:`ensconce.appraisal.appraiser.Appraiser.appraise`.
        """
        self._refuse_in_vain(appraiser, quote)
        try:
            async with asyncio.timeout(self.exchange_time):
                acceptance = await self.appraisals.appraise(quote, appraiser)
        except TimeoutError:
            raise UnreachableError(
                "provisioning.timeout",
                "the evidence could not be appraised in time",
                rule=f"within {self.exchange_time:g} s",
                remedy="check that the PCCS answers, and whether this machine is overloaded",
            ) from None
        self.metrics.collateral_expiry.set(acceptance.verdict.valid_until)
        return acceptance

    def _refuse_in_vain(self, appraiser: Appraiser, quote: bytes) -> None:
        """Appraise nobody who would be refused afterwards: a herd that comes again and again costs a handshake each.

        Only those who were accepted take tokens, so whoever lies about its identity takes none from it.
        """
        try:
            parsed = parse_quote(quote)
        except EnsconceError:
            return  # Appraising it says what is wrong.
        claimed = appraiser.policy.claimed(parsed.tee, parsed.body)
        if claimed is not None and self.identities.spent(claimed.name):
            raise too_often("identity", found=f"evidence, unread, that claims identity {claimed.name!r}")

    async def answer(self, prepare: Callable[[Acceptance], Prepared], *acceptances: Acceptance) -> Prepared:
        """An answer under the policy in force, recorded.

        A narrower one may have come while the client took its time, and may come while keystore or log take theirs:
        then everything is judged and prepared anew. What was recorded before was not sent, as the log allows.

        Args:
            prepare: makes the answer to the first of ``acceptances``, judged anew; it runs in a thread.
            acceptances: of all evidence that the answer rests on.

        Raises:
            RefusedError: the policy in force does not accept all of it.
            EnsconceError: whatever ``prepare`` raises; the log fails.
        """
        while True:
            policy = self.in_force().policy
            with self.metrics.timed("release"):
                judged = [policy.judge(acceptance.verdict) for acceptance in acceptances]
                prepared = await self.threads.run(prepare, judged[0])
            with self.metrics.timed("log"):
                await self.recorder.record(*prepared.events)
            if self.in_force().policy.sha256 == policy.sha256:
                return prepared

    async def refuse(
        self,
        error: EnsconceError,
        peer: str,
        wire: Wire,
        budget: RefusalBudget | None = None,
        acceptance: Acceptance | None = None,
    ) -> None:
        """Count a refusal, and record it unless its budget is spent. Never raises: the refusal stands anyway.

        Args:
            error: why.
            peer: the other side's address.
            wire: which protocol it speaks.
            budget: for refusals that strangers can cause at will; without one it is recorded in any case.
            acceptance: who asked, once that is known for certain.
        """
        self.metrics.refused(error.check, wire)
        suppressed = budget.take() if budget is not None else 0
        if suppressed is None:
            return
        try:
            await self.recorder.record(refusal(error, peer, wire, acceptance, suppressed=suppressed))
        except EnsconceError as failure:
            _log.error("a refusal could not be recorded: %s", failure)


def too_often(what: str, found: str | None = None) -> UnreachableError:
    """The refusal of an address or an identity that asks more often than the owner allows."""
    return UnreachableError(
        "provisioning.rate",
        f"this {what} asks more often than the owner allows",
        found=found,
        rule="provisioning.limits in the deployment file",
        remedy="try again later",
    )
