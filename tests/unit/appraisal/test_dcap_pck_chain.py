"""The chain of PCK certificates in a quote: shapes, issuers and contents that a verifier must not accept.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.platform.simulated.certificates import Party, Validity
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe

NOW = 1_790_000_000
YEAR = 365 * 86_400

EXPIRED = Validity(NOW - YEAR, NOW)
FUTURE = Validity(NOW + 1, NOW + YEAR)

Verify = Callable[..., Verdict]
Refused = Callable[..., str]
Quoting = Callable[..., bytes]
Leaf = Callable[..., Party]


@pytest.fixture(scope="module")
def chain(quote: Quoting) -> Quoting:
    """A quote with a chain of any parties."""
    return lambda *parties: quote(QuoteRecipe(pck_chain=parties))


@pytest.fixture(scope="module")
def with_pck(vendor: SimulatedVendor, chain: Quoting) -> Quoting:
    """A quote with a PCK certificate of one's own making, in a chain that is sound otherwise."""

    def make(**changes: Any) -> bytes:
        arguments = {"issuer": vendor.pck_ca(), "key": vendor.key("pck platform")} | changes
        return chain(vendor.issue_pck(vendor.machine(), **arguments), vendor.pck_ca(), vendor.root)

    return make


@pytest.mark.parametrize(
    "parties",
    [
        lambda vendor: (vendor.pck(),),
        lambda vendor: (vendor.pck(), vendor.pck_ca()),
        lambda vendor: (vendor.pck(), vendor.root),
        lambda vendor: (vendor.root, vendor.pck_ca(), vendor.pck()),
        lambda vendor: (vendor.pck(), vendor.pck_ca(), vendor.root, vendor.root),
        lambda vendor: (vendor.pck(), vendor.pck_ca(), vendor.pck_ca(), vendor.root),
        lambda vendor: (vendor.pck(), vendor.pck_ca("processor"), vendor.root),
        lambda vendor: (vendor.pck_ca(), vendor.pck_ca(), vendor.root),
        lambda vendor: (vendor.tcb_signer, vendor.pck_ca(), vendor.root),
        # dcap-qvl alone: accepted.
        lambda vendor: (vendor.issue_pck(vendor.machine(), issuer=vendor.root, key=vendor.key("x")), vendor.root),
    ],
    ids=[
        "leaf alone",
        "no root",
        "no authority",
        "reversed",
        "root twice",
        "authority twice",
        "other authority",
        "authority as leaf",
        "TCB signer as leaf",
        "issued by the root",
    ],
)
def test_pck_chains_of_another_shape(
    refused: Refused, vendor: SimulatedVendor, chain: Quoting, parties: Callable[[SimulatedVendor], tuple[Party, ...]]
) -> None:
    assert refused(chain(*parties(vendor))) in ("pck_chain.shape", "pck_chain.extension")


def test_a_pck_of_another_name(refused: Refused, with_pck: Quoting) -> None:
    """dcap-qvl alone: accepted."""
    assert refused(with_pck(common_name="Some Other Certificate")) in ("pck_chain.shape", "pck_chain.extension")


def test_a_pck_issued_by_a_pck(refused: Refused, leaf: Leaf, vendor: SimulatedVendor, chain: Quoting) -> None:
    """A leaf as authority, with the names that an authority has."""
    below = vendor.issue_pck(vendor.machine(), issuer=vendor.pck(), key=vendor.key("below"))
    assert refused(chain(below, vendor.pck(), vendor.pck_ca(), vendor.root)) == "pck_chain.shape"
    false_ca = leaf("Intel SGX PCK Platform CA", vendor.root)
    below = vendor.issue_pck(vendor.machine(), issuer=false_ca, key=vendor.key("below"))
    check = refused(chain(below, false_ca, vendor.root))
    assert check in ("pck_chain.shape", "chain.verification", "collateral.pck_crl.issuer")


def test_a_pck_that_its_authority_never_signed(
    refused: Refused, vendor: SimulatedVendor, stranger: SimulatedVendor, chain: Quoting
) -> None:
    impostor = vendor.issue_pck(
        vendor.machine(), issuer=Party(vendor.pck_ca().certificate, stranger.root.key), key=vendor.key("mine")
    )
    assert refused(chain(impostor, vendor.pck_ca(), vendor.root)) == "pck_chain.signature"


def test_a_self_signed_pck(refused: Refused, vendor: SimulatedVendor, chain: Quoting) -> None:
    alone = vendor.issue_pck(vendor.machine(), issuer=vendor.pck(), key=vendor.pck().key)
    assert refused(chain(alone, vendor.pck_ca(), vendor.root)) == "pck_chain.shape"


def test_a_leaf_without_the_sgx_extension(
    refused: Refused, leaf: Leaf, vendor: SimulatedVendor, chain: Quoting
) -> None:
    assert refused(chain(leaf("Intel SGX PCK Certificate", vendor.pck_ca()), vendor.pck_ca(), vendor.root)) in (
        "pck_chain.extension",
    )


@pytest.mark.parametrize(("validity", "check"), [(EXPIRED, "expired"), (FUTURE, "not_yet_valid")])
def test_a_pck_certificate_out_of_its_time(refused: Refused, with_pck: Quoting, validity: Validity, check: str) -> None:
    assert refused(with_pck(validity=validity)) == f"pck_chain.{check}"


def test_a_pck_of_another_platform(refused: Refused, vendor: SimulatedVendor, chain: Quoting) -> None:
    other = replace(vendor.machine(), fmspc=b"SIM\x00\x00\x02")
    pck = vendor.issue_pck(other, issuer=vendor.pck_ca(), key=vendor.key("other"))
    assert refused(chain(pck, vendor.pck_ca(), vendor.root)) == "collateral.tcb_info.fmspc"
    other = replace(vendor.machine(), pce_id=b"\x00\x01")
    pck = vendor.issue_pck(other, issuer=vendor.pck_ca(), key=vendor.key("other"))
    assert refused(chain(pck, vendor.pck_ca(), vendor.root)) == "collateral.tcb_info.pce_id"


def test_the_level_is_the_pck_certificates_not_the_reports(
    verify: Verify, vendor: SimulatedVendor, chain: Quoting
) -> None:
    """The report's CPUSVN is what the machine says of itself; the certificate is what the vendor says."""
    components = (6, *vendor.COMPONENTS[1:])
    older = replace(vendor.machine(), components=components, cpu_svn=bytes(components), pce_svn=12)
    pck = vendor.issue_pck(older, issuer=vendor.pck_ca(), key=vendor.key("older"))
    verdict = verify(chain(pck, vendor.pck_ca(), vendor.root))
    assert verdict.status is TcbStatus.OUT_OF_DATE
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


def test_a_pck_whose_components_contradict_its_cpu_svn(
    refused: Refused, vendor: SimulatedVendor, chain: Quoting
) -> None:
    """One of the two would be what counts, and which one differs between verifiers."""
    better = replace(vendor.machine(), components=(255,) * 16)
    pck = vendor.issue_pck(better, issuer=vendor.pck_ca(), key=vendor.key("better"))
    assert refused(chain(pck, vendor.pck_ca(), vendor.root)) == "pck_chain.extension"
