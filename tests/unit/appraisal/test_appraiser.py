from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from ensconce.appraisal.appraiser import Appraiser, CollateralSource
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EvidenceError, RefusedError, UnreachableError
from ensconce.evidence.report import Attributes
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
CODE = Identity(name="code", mr_enclave=b"\x11" * 32)


class Appraising(Protocol):
    def __call__(self, *, roots: tuple[str, ...] = ..., source: CollateralSource = ..., at: int = ...) -> Appraiser: ...


@pytest.fixture
def appraiser(vendor: SimulatedVendor, source: CollateralSource) -> Callable[..., Appraiser]:
    def make(**changes: Any) -> Appraiser:
        policy = Policy(
            roots=changes.get("roots", (vendor.root_name,)),
            tcb_statuses=(TcbStatus.UP_TO_DATE,),
            identities=(CODE,),
        )
        return Appraiser(policy, changes.get("source", source), lambda: changes.get("at", NOW))

    return make


class Unasked:
    def get_for(self, quote: bytes) -> Collateral:
        raise AssertionError("collateral was asked for")


class Outage:
    def get_for(self, quote: bytes) -> Collateral:
        raise UnreachableError("collateral.source", "the PCCS does not answer")


def test_evidence_that_the_policy_names_is_accepted(appraiser: Appraising, quote: Callable[..., bytes]) -> None:
    assert appraiser().appraise(quote(report_data=b"\x07" * 64)).report.report_data == b"\x07" * 64


def test_another_measurement_is_refused(appraiser: Appraising, quote: Callable[..., bytes]) -> None:
    with pytest.raises(RefusedError) as caught:
        appraiser().appraise(quote(mr_enclave=b"\x12" * 32))
    assert caught.value.check == "policy.mr_enclave"


def test_simulated_evidence_under_a_policy_for_hardware_is_refused_before_anything_is_fetched(
    appraiser: Appraising, quote: Callable[..., bytes], vendor: SimulatedVendor
) -> None:
    with pytest.raises(RefusedError) as caught:
        appraiser(roots=("intel",), source=Unasked()).appraise(quote())
    assert caught.value.check == "policy.root"
    assert caught.value.found == vendor.root_name


def test_a_debug_enclave_is_refused_before_anything_is_fetched(
    appraiser: Appraising, quote: Callable[..., bytes]
) -> None:
    flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
    with pytest.raises(RefusedError) as caught:
        appraiser(source=Unasked()).appraise(quote(flags=flags))
    assert caught.value.check == "policy.debug"


def test_claiming_an_accepted_root_makes_us_fetch_nothing(
    appraiser: Appraising, quote: Callable[..., bytes], vendor: SimulatedVendor
) -> None:
    other = SimulatedVendor(b"\x01" * 32, NOW)
    # The other vendor's PCK and CA, with the accepted root pasted to their end.
    forged = quote().replace(vendor.pck().pem.encode(), other.pck().pem.encode())
    forged = forged.replace(vendor.pck_ca().pem.encode(), other.pck_ca().pem.encode())
    length = struct.unpack_from("<I", quote(), 432)[0] + len(forged) - len(quote())
    inner = forged.index(b"-----BEGIN")
    chain = struct.pack("<I", len(forged) - inner)
    forged = forged[:432] + struct.pack("<I", length) + forged[436 : inner - 4] + chain + forged[inner:]
    with pytest.raises(EvidenceError) as caught:
        appraiser(source=Unasked()).appraise(forged)
    assert caught.value.check == "pck_chain.signature"


def test_a_changed_report_is_not_genuine(appraiser: Appraising, quote: Callable[..., bytes]) -> None:
    with pytest.raises(EvidenceError) as caught:
        appraiser().appraise(quote().replace(b"\x11" * 32, b"\x12" * 32))
    assert caught.value.check == "quote.signature"


def test_collateral_of_another_root_is_refused(
    appraiser: Appraising, quote: Callable[..., bytes], vendor: SimulatedVendor
) -> None:
    other = SimulatedVendor(b"\x01" * 32, NOW)

    doubted: list[bytes] = []

    class Elsewhere:
        def get_for(self, quote: bytes) -> Collateral:
            return other.collateral(NOW)

        def doubt(self, quote: bytes) -> None:
            doubted.append(quote)

    with pytest.raises(EvidenceError) as caught:
        appraiser(source=Elsewhere()).appraise(quote())
    assert caught.value.check == "collateral.root"
    assert doubted == [quote()]


def test_expired_collateral_and_an_outage_accept_nothing(
    appraiser: Appraising, quote: Callable[..., bytes], vendor: SimulatedVendor
) -> None:
    with pytest.raises(EvidenceError):
        appraiser(at=NOW + 365 * 24 * 3600).appraise(quote())
    with pytest.raises(UnreachableError):
        appraiser(source=Outage()).appraise(quote())


@pytest.mark.parametrize("evidence", [b"", b"\x03\x00", bytes(5000)])
def test_what_is_no_quote_is_no_evidence(appraiser: Appraising, evidence: bytes) -> None:
    with pytest.raises(EvidenceError):
        appraiser().appraise(evidence)
