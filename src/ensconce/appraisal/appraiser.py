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
from ensconce.appraisal.root import claimed_root, root_named
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import parse_quote

__all__ = ["Appraiser", "CollateralSource"]


class CollateralSource(Protocol):
    """Where collateral comes from; never from the one who is appraised. See :class:`ensconce.appraisal.cache`."""

    def get_for(self, quote: bytes) -> Collateral:
        """Collateral for the platform that a quote says it is of.

        Raises:
            EvidenceError: the quote does not say.
            UnreachableError: there is none to be had now.
        """
        ...

    def doubt(self, quote: bytes) -> None:
        """What :meth:`get_for` gave for this quote did not hold."""
        ...


@dataclass(frozen=True)
class Appraiser:
    """Appraises quotes under one policy. Safe to share between threads.

    Attributes:
        policy: what is accepted.
        collateral: where collateral comes from.
        now: the clock, seconds since 1970.
    """

    policy: Policy
    collateral: CollateralSource
    now: Callable[[], int]

    def appraise(self, quote: bytes) -> Acceptance:
        """Verify a quote and have the policy judge it, as of now.

        What the quote is fresh for, and which key or channel it binds, is the caller's to check, in the report that
        the acceptance carries.

        Args:
            quote: SGX quote, DCAP.

        Raises:
            EvidenceError: it is malformed or not genuine.
            RefusedError: it is genuine and the policy refuses it; or it claims a root that the policy does not name,
                or to be a debug enclave, which is refused before anything is fetched or verified.
            UnreachableError: collateral is not to be had.
        """
        parsed = parse_quote(quote)
        root = claimed_root(parsed)
        if root not in self.policy.roots:
            raise self.policy.refuse_root(root)
        self.policy.refuse_debug(parsed.body)
        _check_signatures(chain_in(parsed))
        collateral = self.collateral.get_for(quote)
        try:
            verdict = verify_quote(quote, collateral, at=self.now(), root=root_named(root, collateral))
        except EvidenceError as error:
            if error.check.startswith("collateral."):
                self.collateral.doubt(quote)
            raise
        return self.policy.judge(verdict)


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
