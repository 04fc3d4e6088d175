"""Only the TCB signer signs documents: chains of signers that a verifier of DCAP quotes must not accept.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.platform.simulated.certificates import Party, Validity
from ensconce.platform.simulated.collateral import DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
YEAR = 365 * 86_400

EXPIRED = Validity(NOW - YEAR, NOW)
FUTURE = Validity(NOW + 1, NOW + YEAR)

Refused = Callable[..., str]
Papers = Callable[..., Collateral]
Leaf = Callable[..., Party]


# Role confusion: dcap-qvl alone accepts all four shapes, for both documents.


def pck_as_signer(vendor: SimulatedVendor, leaf: Leaf) -> DocumentRecipe:
    """The platform's own PCK key: an extracted one would judge itself up to date."""
    chain = (vendor.pck(), vendor.pck_ca(), vendor.root)
    return DocumentRecipe(signer=vendor.pck(), chain=chain)


def pck_with_the_signers_root_only(vendor: SimulatedVendor, leaf: Leaf) -> DocumentRecipe:
    return DocumentRecipe(signer=vendor.pck(), chain=(vendor.pck(), vendor.root))


def leaf_of_the_pck_ca(vendor: SimulatedVendor, leaf: Leaf) -> DocumentRecipe:
    """Named as the TCB signer, but under the wrong authority."""
    signer = leaf("Intel SGX TCB Signing", vendor.pck_ca())
    return DocumentRecipe(signer=signer, chain=(signer, vendor.pck_ca(), vendor.root))


def other_leaf_of_the_root(vendor: SimulatedVendor, leaf: Leaf) -> DocumentRecipe:
    signer = leaf("Intel SGX Something Else", vendor.root)
    return DocumentRecipe(signer=signer, chain=(signer, vendor.root))


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "shape", [pck_as_signer, pck_with_the_signers_root_only, leaf_of_the_pck_ca, other_leaf_of_the_root]
)
def test_role_confusion(
    refused: Refused,
    collateral: Papers,
    leaf: Leaf,
    vendor: SimulatedVendor,
    document: str,
    shape: Callable[[SimulatedVendor, Leaf], DocumentRecipe],
) -> None:
    assert refused(papers=collateral(**{document: shape(vendor, leaf)})) == f"collateral.{document}.chain.shape"


# Chains and dates.


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "parties",
    [
        lambda vendor: (vendor.root,),
        lambda vendor: (vendor.root, vendor.tcb_signer),
        lambda vendor: (vendor.tcb_signer,),
        lambda vendor: (vendor.tcb_signer, vendor.pck_ca(), vendor.root),
        lambda vendor: (vendor.tcb_signer, vendor.root, vendor.root),
        lambda vendor: (vendor.pck_ca(), vendor.root),
        lambda vendor: (),
    ],
    ids=["root alone", "reversed", "no root", "one too many", "root twice", "an authority as signer", "empty"],
)
def test_signer_chains_of_another_shape(
    refused: Refused,
    collateral: Papers,
    vendor: SimulatedVendor,
    document: str,
    parties: Callable[[SimulatedVendor], tuple[Party, ...]],
) -> None:
    check = refused(papers=collateral(**{document: DocumentRecipe(chain=parties(vendor))}))
    assert check in (f"collateral.{document}.chain.shape", f"collateral.{document}.chain.format")


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_root_that_signs_documents_itself(
    refused: Refused, collateral: Papers, vendor: SimulatedVendor, document: str
) -> None:
    recipe = DocumentRecipe(signer=vendor.root, chain=(vendor.root, vendor.root))
    assert refused(papers=collateral(**{document: recipe})) == f"collateral.{document}.chain.shape"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_signer_that_the_root_never_signed(
    refused: Refused, collateral: Papers, leaf: Leaf, vendor: SimulatedVendor, stranger: SimulatedVendor, document: str
) -> None:
    """Right names throughout, and the right root at the end: only the signature tells."""
    impostor = leaf("Intel SGX TCB Signing", Party(vendor.root.certificate, stranger.root.key))
    check = refused(papers=collateral(**{document: DocumentRecipe(signer=impostor)}))
    assert check == f"collateral.{document}.chain.signature"


@pytest.mark.parametrize(("validity", "check"), [(EXPIRED, "expired"), (FUTURE, "not_yet_valid")])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_tcb_signer_out_of_its_time(
    refused: Refused,
    collateral: Papers,
    leaf: Leaf,
    vendor: SimulatedVendor,
    document: str,
    validity: Validity,
    check: str,
) -> None:
    signer = leaf("Intel SGX TCB Signing", vendor.root, validity=validity)
    papers = collateral(**{document: DocumentRecipe(signer=signer)})
    assert refused(papers=papers) == f"collateral.{document}.chain.{check}"
