"""Revocation, and revocation lists that a verifier of DCAP quotes must not accept.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.certificates import Party
from ensconce.platform.simulated.collateral import CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

DAY = 86_400
YEAR = 365 * 86_400

Verify = Callable[..., Verdict]
Refused = Callable[..., str]
Papers = Callable[..., Collateral]
Leaf = Callable[..., Party]


# Each of the four certificates that can be revoked.


@pytest.mark.parametrize(
    ("recipe", "checks"),
    [
        (lambda vendor: {"pck_crl": CrlRecipe(revoked=[vendor.pck().serial])}, {"pck_chain.revoked"}),
        (lambda vendor: {"pck_crl": CrlRecipe(revoked=[1, 2, vendor.pck().serial, 3])}, {"pck_chain.revoked"}),
        (
            lambda vendor: {"root_crl": CrlRecipe(revoked=[vendor.pck_ca().serial])},
            {"pck_chain.revoked", "collateral.pck_crl.chain.revoked"},
        ),
        (
            lambda vendor: {"root_crl": CrlRecipe(revoked=[vendor.tcb_signer.serial])},
            {"collateral.tcb_info.chain.revoked", "collateral.qe_identity.chain.revoked"},
        ),
        (
            lambda vendor: {"root_crl": CrlRecipe(revoked=[vendor.root.serial])},
            {"pck_chain.revoked", "collateral.pck_crl.chain.revoked", "collateral.tcb_info.chain.revoked"},
        ),
    ],
    ids=["PCK", "PCK among others", "PCK CA", "TCB signer", "root"],
)
def test_revoked(
    refused: Refused,
    collateral: Papers,
    vendor: SimulatedVendor,
    recipe: Callable[[SimulatedVendor], dict[str, CrlRecipe]],
    checks: set[str],
) -> None:
    assert refused(papers=collateral(**recipe(vendor))) in checks


def test_a_revoked_signer_of_one_document_only(
    refused: Refused, collateral: Papers, leaf: Leaf, vendor: SimulatedVendor
) -> None:
    other = leaf("Intel SGX TCB Signing", vendor.root)
    for document in ("tcb_info", "qe_identity"):
        papers = collateral(**{document: DocumentRecipe(signer=other)}, root_crl=CrlRecipe(revoked=[other.serial]))
        assert refused(papers=papers) == f"collateral.{document}.chain.revoked"


def test_revoked_strangers_do_no_harm(verify: Verify, collateral: Papers, vendor: SimulatedVendor) -> None:
    harmless = {
        "root_crl": CrlRecipe(revoked=[vendor.pck().serial, vendor.pck_ca("processor").serial]),
        "pck_crl": CrlRecipe(revoked=[vendor.pck_ca().serial, vendor.pck("processor").serial]),
    }
    assert verify(papers=collateral(**harmless)).status is TcbStatus.UP_TO_DATE


# Lists that are none, or another's, or of another time.


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl"])
@pytest.mark.parametrize("forge", [lambda crl: b"", lambda crl: crl[:-1], lambda crl: crl + b"\0", bytes.hex])
def test_revocation_lists_that_are_none(
    refused: Refused, collateral: Papers, name: str, forge: Callable[[bytes], bytes | str]
) -> None:
    papers = collateral()
    made = forge(getattr(papers, name))
    data = made.encode() if isinstance(made, str) else made
    assert refused(papers=replace(papers, **{name: data})).startswith(f"collateral.{name}.")


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl"])
def test_every_bit_of_a_revocation_list_counts(verify: Verify, collateral: Papers, name: str) -> None:
    papers = collateral(pck_crl=CrlRecipe(revoked=[5]), root_crl=CrlRecipe(revoked=[5]))
    crl = getattr(papers, name)
    for at in range(0, len(crl), 3):
        changed = bytearray(crl)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(EvidenceError):
            verify(papers=replace(papers, **{name: bytes(changed)}))


@pytest.mark.parametrize(("crl", "name"), [("root_crl", "root_ca_crl"), ("pck_crl", "pck_crl")])
def test_forged_revocation_lists(
    refused: Refused, collateral: Papers, vendor: SimulatedVendor, stranger: SimulatedVendor, crl: str, name: str
) -> None:
    """Of the right name, empty as the forger likes it, signed by another key."""
    rightful = vendor.root if crl == "root_crl" else vendor.pck_ca()
    forged = CrlRecipe(issuer=Party(rightful.certificate, stranger.root.key))
    assert refused(papers=collateral(**{crl: forged})) == f"collateral.{name}.signature"


def test_revocation_lists_of_the_wrong_authority(refused: Refused, collateral: Papers, vendor: SimulatedVendor) -> None:
    assert refused(papers=collateral(ca="processor")) in ("collateral.pck_crl.issuer", "collateral.pck_crl.chain.shape")
    wrong = CrlRecipe(issuer=vendor.pck_ca("processor"))
    assert refused(papers=collateral(pck_crl=wrong)) == "collateral.pck_crl.issuer"
    assert refused(papers=collateral(root_crl=CrlRecipe(issuer=vendor.pck_ca()))) == "collateral.root_ca_crl.issuer"
    assert refused(papers=collateral(pck_crl=CrlRecipe(issuer=vendor.root))) == "collateral.pck_crl.issuer"


def test_revocation_lists_in_each_others_place(refused: Refused, collateral: Papers) -> None:
    papers = collateral()
    swapped = replace(papers, root_ca_crl=papers.pck_crl, pck_crl=papers.root_ca_crl)
    assert refused(papers=swapped) == "collateral.root_ca_crl.issuer"


def test_a_revocation_list_signed_by_a_pck_key(refused: Refused, collateral: Papers, vendor: SimulatedVendor) -> None:
    """A leaf may not revoke, nor un-revoke."""
    forged = CrlRecipe(issuer=Party(vendor.pck_ca().certificate, vendor.pck().key))
    assert refused(papers=collateral(pck_crl=forged)) == "collateral.pck_crl.signature"


@pytest.mark.parametrize(("crl", "name"), [("root_crl", "root_ca_crl"), ("pck_crl", "pck_crl")])
@pytest.mark.parametrize(
    ("times", "check"),
    [
        ({"issued": -40 * DAY, "next_update": 0}, "expired"),
        ({"issued": -40 * DAY, "next_update": -DAY}, "expired"),
        ({"issued": 1}, "not_yet_valid"),  # dcap-qvl alone: accepted
        ({"issued": YEAR, "next_update": 2 * YEAR}, "not_yet_valid"),
    ],
)
def test_revocation_lists_out_of_their_time(
    refused: Refused, collateral: Papers, crl: str, name: str, times: dict[str, int], check: str
) -> None:
    assert refused(papers=collateral(**{crl: CrlRecipe(**times)})) == f"collateral.{name}.{check}"
