"""From a quote to an acceptance: choose the root, get collateral, verify, judge; for servers and clients alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from ensconce.appraisal.chains import common_name, issued_by
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.pck import chain_in
from ensconce.appraisal.policy import Acceptance, Policy
from ensconce.appraisal.published import Published, judge
from ensconce.appraisal.root import TrustRoot, claimed_root, root_named
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import parse_quote
from ensconce.times import unix_of
from ensconce.trail import exhibit, held, step

__all__ = ["Appraiser", "Case", "CollateralSource", "Verify"]


class Verify(Protocol):
    """Verifies a quote as :func:`ensconce.appraisal.dcap.verify_quote` does, here or in another process."""

    def __call__(self, quote: bytes, collateral: Collateral, *, at: int, root: TrustRoot) -> Verdict:
        """The verdict, or an EnsconceError."""
        ...


class CollateralSource(Protocol):
    """Where collateral comes from; never from the one who is appraised. See :class:`ensconce.appraisal.cache`."""

    def get_for(self, quote: bytes) -> Collateral:
        """Collateral for the platform that a quote says it is of.

        Raises:
            EvidenceError: the quote does not say; or a certificate in it was revoked once, whatever lists say now.
            UnreachableError: there is none to be had now.
        """
        ...

    def doubt(self, quote: bytes) -> None:
        """What :meth:`get_for` gave for this quote did not hold."""
        ...


@dataclass(frozen=True)
class Case:
    """A quote and what it is verified with.

    Attributes:
        quote: as it came.
        collateral: for its platform.
        root: name of the root that it claims, which the policy names too.
    """

    quote: bytes
    collateral: Collateral
    root: str


@dataclass(frozen=True)
class Appraiser:
    """Appraises quotes under one policy. Safe to share between threads.

    Attributes:
        policy: what is accepted.
        collateral: where collateral comes from.
        now: the clock, seconds since 1970.
        published: what has to be published beside; None where the policy alone judges.
        by_published_alone: whether identities are those that are published now, and not the policy's.
    """

    policy: Policy
    collateral: CollateralSource
    now: Callable[[], int]
    published: Published | None = None
    by_published_alone: bool = False

    def appraise(self, quote: bytes) -> Acceptance:
        """Verify a quote and have the policy judge it, as of now.

        The steps by themselves are :meth:`gather`, :meth:`verify` and ``policy.judge``, for servers, which do each in a
        place of its own and hold nothing against a published list. What the quote is fresh for, and which key or
        channel it binds, is the caller's to check, in the report that the acceptance carries.

        Args:
            quote: SGX quote, DCAP.

        Raises:
            EvidenceError: it is malformed or not genuine.
            RefusedError: it is genuine and the policy refuses it, or it is not published; or it claims a root that the
                policy does not name, or to be a debug enclave, which is refused before anything is fetched or verified.
            UnreachableError: collateral is not to be had, or the published list.
            IntegrityError: ``audit.*``, ``published.remembered``: the publisher's log was bent.
        """
        verdict = self.verify(self.gather(quote))
        if self.published is None:
            return self.policy.judge(verdict)
        with step("published"):
            published = self.published()
            judge(published, verdict.report, self.now())
        policy = published.to_policy(self.policy.roots) if self.by_published_alone else self.policy
        return policy.judge(verdict).until(unix_of(published.expires))

    def gather(self, quote: bytes) -> Case:
        """Everything that a quote is to be verified with. May wait for the network.

        Raises:
            EvidenceError: it is malformed, or its chain is not what its root signed.
            RefusedError: it claims a root that the policy does not name, or to be a debug enclave.
            UnreachableError: collateral is not to be had.
        """
        with step("claims"):
            parsed = parse_quote(quote)
            root = claimed_root(parsed)
            if root not in self.policy.roots:
                raise self.policy.refuse_root(root)
            held("policy.root", "root that it claims", found=root, rule=f"roots: [{', '.join(self.policy.roots)}]")
            self.policy.refuse_debug(parsed.body)
            _check_signatures(chain_in(parsed))
        with step("collateral"):
            collateral = self.collateral.get_for(quote)
            exhibit("collateral", collateral)
            found = "TCB info, QE identity, two revocation lists, and the chains of their issuers"
            held("collateral.missing", "documents", found=found, rule="all of these, from the client's own source")
        return Case(quote, collateral, root)

    def verify(self, case: Case, by: Verify = verify_quote) -> Verdict:
        """Verify a quote with what was gathered, as of now; collateral that does not hold is doubted from then on.

        Raises:
            EvidenceError: the quote is not genuine, or the collateral is not.
        """
        try:
            with step("root"):
                root = root_named(case.root, case.collateral)
            return by(case.quote, case.collateral, at=self.now(), root=root)
        except EvidenceError as error:
            if error.check.startswith("collateral."):
                self.collateral.doubt(case.quote)
            raise


def _check_signatures(chain: tuple[x509.Certificate, ...]) -> None:
    """Only a chain that an accepted root signed may make us fetch: what a quote says of its platform is hearsay."""
    for certificate, issuer in zip(chain, (*chain[1:], chain[-1]), strict=True):
        if not issued_by(certificate, issuer):
            raise EvidenceError(
                "pck_chain.signature",
                "a certificate in the quote is not signed by the one after it",
                found=common_name(certificate)[:100],
                remedy="ask for a new quote",
            )
    names = " <- ".join(common_name(each) for each in chain)
    held("pck_chain.signature", "certificates in the quote", found=names, rule="each signed by the one after it")
