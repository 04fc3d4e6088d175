"""Vetting: every signature counts, and every root but the accepted is a stranger's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.vetting import vet
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.certificates import sign_raw
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
DAY = 86_400


def refused(papers: Collateral, vendor: SimulatedVendor) -> str:
    with pytest.raises(EvidenceError) as caught:
        vet(papers, (vendor.root_name,))
    assert caught.value.remedy
    return caught.value.check


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_what_sound_collateral_says(vendor: SimulatedVendor, tee: str, ca: str) -> None:
    recipe = CollateralRecipe(
        tee=tee,  # type: ignore[arg-type]
        ca=ca,  # type: ignore[arg-type]
        tcb_info=DocumentRecipe(issued=-5, next_update=9 * DAY),
        pck_crl=CrlRecipe(revoked=(0x1F, 0xABC)),
        root_crl=CrlRecipe(issued=-3),
    )
    papers = vendor.collateral(NOW, recipe)
    vetted = vet(papers, ("intel", vendor.root_name))
    assert vetted.collateral == papers
    assert vetted.root == vendor.root_name
    assert vetted.platform == PlatformKind(tee, vendor.FMSPC.hex(), ca)  # type: ignore[arg-type]
    assert (vetted.begin, vetted.end) == (NOW - 3, NOW + 9 * DAY)
    root, authority = vetted.lists
    assert authority.serials == {"1f", "abc"}
    assert root.serials == frozenset()
    assert (root.issued, root.next_update) == (NOW - 3, NOW + 30 * DAY)
    assert len({root.issuer, authority.issuer}) == 2


def test_another_root(vendor: SimulatedVendor, stranger: SimulatedVendor) -> None:
    assert refused(stranger.collateral(NOW), vendor) == "collateral.root"
    with pytest.raises(EvidenceError):
        vet(vendor.collateral(NOW), ())
    with pytest.raises(EvidenceError):
        vet(vendor.collateral(NOW), ("intel",))


@pytest.mark.parametrize(
    ("member", "check"),
    [
        ("tcb_info_issuer_chain", "collateral.tcb_info.chain.root"),
        ("qe_identity_issuer_chain", "collateral.qe_identity.chain.root"),
        ("pck_crl_issuer_chain", "collateral.root"),
        ("root_ca_crl", "collateral.root_ca_crl.signature"),
        ("pck_crl", "collateral.pck_crl.signature"),
        ("tcb_info_signature", "collateral.tcb_info.signature"),
        ("qe_identity_signature", "collateral.qe_identity.signature"),
    ],
)
def test_one_part_of_another_vendor(
    vendor: SimulatedVendor, stranger: SimulatedVendor, member: str, check: str
) -> None:
    theirs = getattr(stranger.collateral(NOW), member)
    assert refused(replace(vendor.collateral(NOW), **{member: theirs}), vendor) == check


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65)])
def test_signatures_that_are_none(vendor: SimulatedVendor, member: str, signature: bytes) -> None:
    papers = replace(vendor.collateral(NOW), **{f"{member}_signature": signature})
    assert refused(papers, vendor) == f"collateral.{member}.signature"


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_one_changed_byte(vendor: SimulatedVendor, member: str) -> None:
    papers = vendor.collateral(NOW)
    changed = getattr(papers, member).replace('"tcbEvaluationDataNumber":1', '"tcbEvaluationDataNumber":2')
    assert refused(replace(papers, **{member: changed}), vendor) == f"collateral.{member}.signature"


def test_a_chain_whose_links_are_names_alone(
    vendor: SimulatedVendor, stranger: SimulatedVendor, collateral: Callable[..., Collateral]
) -> None:
    """A signer of somebody else's, with the accepted root pasted behind it."""
    mixed = (stranger.tcb_signer, vendor.root)
    papers = collateral(tcb_info=DocumentRecipe(signer=stranger.tcb_signer, chain=mixed))
    assert refused(papers, vendor) == "collateral.tcb_info.chain.signature"
    papers = collateral(pck_crl=CrlRecipe(issuer=stranger.pck_ca()))
    papers = replace(papers, pck_crl_issuer_chain=stranger.pck_ca().pem + vendor.root.pem)
    assert refused(papers, vendor) == "collateral.pck_crl.chain.signature"


def test_a_platform_cannot_sign_for_its_vendor(vendor: SimulatedVendor, collateral: Callable[..., Collateral]) -> None:
    papers = collateral(
        tcb_info=DocumentRecipe(signer=vendor.pck(), chain=(vendor.pck(), vendor.pck_ca(), vendor.root))
    )
    assert refused(papers, vendor) == "collateral.tcb_info.chain.shape"


def test_swapped_revocation_lists(vendor: SimulatedVendor) -> None:
    papers = vendor.collateral(NOW)
    swapped = replace(papers, root_ca_crl=papers.pck_crl, pck_crl=papers.root_ca_crl)
    assert refused(swapped, vendor) == "collateral.root_ca_crl.issuer"


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def test_a_negative_serial_number(vendor: SimulatedVendor) -> None:
    """Genuine in every other respect: signed again after one bit of the entry was turned."""
    serial = (1 << 159) - 1
    papers = vendor.collateral(NOW, CollateralRecipe(pck_crl=CrlRecipe(revoked=(serial,))))
    crl = x509.load_der_x509_crl(papers.pck_crl)
    entry = b"\x02\x14" + serial.to_bytes(20, "big")
    signed = crl.tbs_certlist_bytes.replace(entry, b"\x02\x14\xff" + entry[3:])
    signature = vendor.pck_ca().key.sign(signed, ec.ECDSA(hashes.SHA256()))
    algorithm = der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    made = der(0x30, signed + algorithm + der(0x03, b"\0" + signature))
    assert refused(replace(papers, pck_crl=made), vendor) == "collateral.pck_crl.format"


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"id":"SEV"}', "\ud800"])
def test_documents_that_are_none(vendor: SimulatedVendor, text: str) -> None:
    assert refused(replace(vendor.collateral(NOW), tcb_info=text), vendor).startswith("collateral.tcb_info.")


def test_a_signature_over_anything_else_is_not_enough(vendor: SimulatedVendor) -> None:
    text = json.dumps({"id": "SGX"})
    papers = replace(
        vendor.collateral(NOW), tcb_info=text, tcb_info_signature=sign_raw(vendor.tcb_signer.key, text.encode())
    )
    assert refused(papers, vendor).startswith("collateral.tcb_info.")


def test_all_genuine_collateral_is_vetted(vectors: Path) -> None:
    found = sorted((vectors / "quotes" / "collateral").glob("*.json"))
    for path in found:
        vetted = vet(Collateral.from_json(path.read_bytes()), ("intel",))
        assert vetted.begin < vetted.end, path.name
        assert vetted.lists[0].issuer != vetted.lists[1].issuer
    assert found
