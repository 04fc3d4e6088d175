from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.root import (
    INTEL_ROOT_SHA256,
    IntelRoot,
    SimulatedRoot,
    claimed_root,
    parse_root_certificate,
    parse_root_name,
    root_named,
)
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import parse_quote
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000


@pytest.fixture
def collateral(vendor: SimulatedVendor) -> Collateral:
    return vendor.collateral(NOW)


def test_names_carry_the_fingerprint(vendor: SimulatedVendor) -> None:
    root = SimulatedRoot(vendor.root_certificate_der)
    assert root.name == vendor.root_name
    assert root.name == "simulated:" + hashlib.sha256(vendor.root_certificate_der).hexdigest()
    assert (IntelRoot().name, IntelRoot().fingerprint) == ("intel", INTEL_ROOT_SHA256)


@pytest.mark.parametrize("name", ["intel", "simulated:" + "0a" * 32])
def test_names_that_are_good(name: str) -> None:
    assert parse_root_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "Intel", "intel ", "simulated", "simulated:", "simulated:" + "0A" * 32, "simulated:" + "0a" * 31),
        *("simulated:" + "0a" * 32 + "\n", "simulated:" + INTEL_ROOT_SHA256, "amd", "x" * 1000),
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_root_name(name)
    assert caught.value.check == "root.name"
    assert len(str(caught.value)) < 500


def test_a_root_is_found_among_the_issuers(vendor: SimulatedVendor, collateral: Collateral) -> None:
    assert root_named(vendor.root_name, collateral) == SimulatedRoot(vendor.root_certificate_der)
    assert root_named("intel", collateral) == IntelRoot()
    with pytest.raises(EvidenceError) as caught:
        root_named("simulated:" + "0a" * 32, collateral)
    assert caught.value.check == "collateral.root"


def test_a_quote_claims_a_root(vendor: SimulatedVendor, quote: Callable[..., bytes]) -> None:
    assert claimed_root(parse_quote(quote())) == vendor.root_name


def test_root_certificates_come_as_pem_or_der(vendor: SimulatedVendor) -> None:
    for data in (vendor.root_certificate_der, vendor.root.pem.encode(), b"\n" + vendor.root.pem.encode()):
        assert parse_root_certificate(data).name == vendor.root_name


def test_files_that_hold_no_root(vendor: SimulatedVendor) -> None:
    for data in (
        b"",
        b"intel",
        vendor.root_certificate_der + b"\0",
        vendor.pck_ca().der,
        vendor.tcb_signer.pem.encode(),
    ):
        with pytest.raises(InputError) as caught:
            parse_root_certificate(data)
        assert caught.value.check == "root.certificate"
