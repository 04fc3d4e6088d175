"""A simulated vendor, quotes of any report, and verdicts on them; nothing here stands in for what is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import SimulatedRoot
from ensconce.appraisal.verdict import Verdict
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote

NOW = 1_790_000_000


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
    return SimulatedVendor(bytes(32), NOW)


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
    return lambda **fields: make_quote(vendor, report(**fields))


@pytest.fixture(scope="session")
def verdict(vendor: SimulatedVendor, quote: Callable[..., bytes]) -> Callable[..., Verdict]:
    """The verdict on a real simulated quote; ``tcb_status`` is that of the machine."""

    def make(tcb_status: str = "UpToDate", **fields: Any) -> Verdict:
        advisories = () if tcb_status == "UpToDate" else ("SIMULATED-SA-00001",)
        collateral = vendor.collateral(NOW, CollateralRecipe(tcb_status=tcb_status, advisory_ids=advisories))
        return verify_quote(quote(**fields), collateral, at=NOW, root=SimulatedRoot(vendor.root_certificate_der))

    return make
