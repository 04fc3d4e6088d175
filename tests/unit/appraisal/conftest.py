"""A simulated vendor, quotes of any report, and verdicts on them; nothing here stands in for what is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import SimulatedRoot, TrustRoot
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.certificates import Party, Validity, issue
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

NOW = 1_790_000_000
YEAR = 365 * 86_400


@dataclass(frozen=True)
class Source:
    """Collateral straight from the vendor."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        pass


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    """Its certificates are a year old."""
    return SimulatedVendor(bytes(32), NOW - YEAR)


@pytest.fixture(scope="session")
def stranger() -> SimulatedVendor:
    """Another vendor: the same names, other keys."""
    return SimulatedVendor(b"\x01" * 32, NOW - YEAR)


@pytest.fixture(scope="session")
def root(vendor: SimulatedVendor) -> SimulatedRoot:
    return SimulatedRoot(vendor.root_certificate_der)


@pytest.fixture(scope="session")
def source(vendor: SimulatedVendor) -> Source:
    return Source(vendor.collateral(NOW))


@pytest.fixture(scope="session")
def report(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> Callable[..., SgxReport]:
    """A report of a sound enclave, with fields of one's choice; ``flags`` are its attribute flags."""

    def make(flags: int = Attributes.INIT | Attributes.MODE64BIT, **fields: Any) -> SgxReport:
        return sound_report(vendor, attributes=Attributes(flags, 3), **fields)

    return make


@pytest.fixture(scope="session")
def quote(vendor: SimulatedVendor, report: Callable[..., SgxReport]) -> Callable[..., bytes]:
    """A quote of any report, made by any recipe."""

    def make(recipe: QuoteRecipe | None = None, **fields: Any) -> bytes:
        return make_quote(vendor, report(**fields), recipe)

    return make


@pytest.fixture(scope="session")
def collateral(vendor: SimulatedVendor) -> Callable[..., Collateral]:
    """The vendor's collateral, with the parts of a recipe that are given."""
    return lambda **recipe: vendor.collateral(NOW, CollateralRecipe(**recipe))


@pytest.fixture(scope="session")
def verify(
    root: SimulatedRoot, quote: Callable[..., bytes], collateral: Callable[..., Collateral]
) -> Callable[..., Verdict]:
    """The verdict; what is not given is sound."""

    def run(
        data: bytes | None = None, papers: Collateral | None = None, *, at: int = NOW, root: TrustRoot = root
    ) -> Verdict:
        return verify_quote(quote() if data is None else data, papers or collateral(), at=at, root=root)

    return run


@pytest.fixture(scope="session")
def refused(verify: Callable[..., Verdict]) -> Callable[..., str]:
    """The name of the check that refuses; the test fails if none does. Takes what ``verify`` takes."""

    def run(data: bytes | None = None, papers: Collateral | None = None, **others: Any) -> str:
        with pytest.raises(EvidenceError) as refusal:
            verify(data, papers, **others)
        assert refusal.value.problem
        assert refusal.value.check != "quote.verification", f"no name for: {refusal.value.found}"
        return refusal.value.check

    return run


@pytest.fixture(scope="session")
def leaf(vendor: SimulatedVendor) -> Callable[..., Party]:
    """A certificate with a key, of any name, below any issuer, that is no authority."""

    def make(name: str, issuer: Party, *, validity: Validity | None = None) -> Party:
        return issue(
            name,
            vendor.key(f"leaf {name}"),
            issuer,
            validity=validity or vendor.validity(7),
            crl_url="https://simulated.invalid/x.der",
            path_length=None,
        )

    return make


@pytest.fixture(scope="session")
def verdict(
    verify: Callable[..., Verdict], quote: Callable[..., bytes], collateral: Callable[..., Collateral]
) -> Callable[..., Verdict]:
    """The verdict on a real simulated quote; ``tcb_status`` is that of the machine."""

    def make(tcb_status: str = "UpToDate", **fields: Any) -> Verdict:
        advisories = () if tcb_status == "UpToDate" else ("SIMULATED-SA-00001",)
        return verify(quote(**fields), collateral(tcb_status=tcb_status, advisory_ids=advisories))

    return make
