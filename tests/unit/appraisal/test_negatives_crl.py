"""Revocation lists that a verifier of DCAP must not accept, and certificates that they revoke.

That a list is older than one seen before, or shorter (roll-back, shrinkage), is not to be seen in one verification:
what was once revoked stays revoked in the collateral cache, and is tested with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.certificates import Party
from ensconce.platform.simulated.collateral import CrlRecipe, DocumentRecipe

DAY = 86_400
YEAR = 365 * DAY
STILL_GOOD = "what ends at a second is good in it"
SIGNER = "Intel SGX TCB Signing"


def case(check: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, **more}


def root_list(w: Any, **recipe: Any) -> Any:
    return w.papers(root_crl=CrlRecipe(**recipe))


def pck_list(w: Any, **recipe: Any) -> Any:
    return w.papers(pck_crl=CrlRecipe(**recipe))


def signer_of_one(w: Any, document: str) -> Any:
    """A second signer, of one document only, and revoked."""
    other = w.leaf(SIGNER, w.vendor.root)
    return w.papers(**{document: DocumentRecipe(signer=other)}, root_crl=CrlRecipe(revoked=[other.serial]))


def endless(w: Any) -> bytes:
    """The PCK list with the first of its two times in place of the second."""
    der: bytes = w.papers(pck_crl=CrlRecipe()).pck_crl
    crl = x509.load_der_x509_crl(der)
    begin, end = (f"{when:%y%m%d%H%M%SZ}".encode() for when in (crl.last_update_utc, crl.next_update_utc))
    return der.replace(end, begin)


CASES = {
    "CRL: PCK revoked": case("pck_chain.revoked", lambda w: pck_list(w, revoked=[w.vendor.pck().serial])),
    "CRL: PCK revoked among others": case(
        "pck_chain.revoked", lambda w: pck_list(w, revoked=[1, 2, w.vendor.pck().serial, 3])
    ),
    "CRL: PCK CA revoked": case("pck_chain.revoked", lambda w: root_list(w, revoked=[w.vendor.pck_ca().serial])),
    "CRL: TCB signer revoked": case(
        "collateral.tcb_info.chain.revoked", lambda w: root_list(w, revoked=[w.vendor.tcb_signer.serial])
    ),
    "CRL: TCB info's signer revoked": case("collateral.tcb_info.chain.revoked", lambda w: signer_of_one(w, "tcb_info")),
    "CRL: QE identity's signer revoked": case(
        "collateral.qe_identity.chain.revoked", lambda w: signer_of_one(w, "qe_identity")
    ),
    "CRL: root revoked": case(
        "pck_chain.revoked",
        lambda w: root_list(w, revoked=[w.vendor.root.serial]),
        intel="it does not look its root up",
    ),
    "CRL: root's forged": case(
        "collateral.root_ca_crl.signature",
        lambda w: root_list(w, issuer=Party(w.vendor.root.certificate, w.stranger.root.key)),
    ),
    "CRL: PCK's forged": case(
        "collateral.pck_crl.signature",
        lambda w: pck_list(w, issuer=Party(w.vendor.pck_ca().certificate, w.stranger.root.key)),
    ),
    "CRL: PCK's signed by a PCK": case(
        "collateral.pck_crl.signature",
        lambda w: pck_list(w, issuer=Party(w.vendor.pck_ca().certificate, w.vendor.pck().key)),
    ),
    "CRL: PCK's of the wrong CA": case(
        "collateral.pck_crl.issuer", lambda w: pck_list(w, issuer=w.vendor.pck_ca("processor"))
    ),
    "CRL: PCK's of the root": case("collateral.pck_crl.issuer", lambda w: pck_list(w, issuer=w.vendor.root)),
    "CRL: root's of the PCK CA": case(
        "collateral.root_ca_crl.issuer", lambda w: root_list(w, issuer=w.vendor.pck_ca())
    ),
    "CRL: swapped": case(
        "collateral.root_ca_crl.issuer",
        lambda w: replace(w.sound_papers, root_ca_crl=w.sound_papers.pck_crl, pck_crl=w.sound_papers.root_ca_crl),
    ),
    "CRL: PCK's never expires": case(
        "collateral.pck_crl.format", lambda w: replace(w.sound_papers, pck_crl=endless(w))
    ),
}

for _name, _member, _list in (("root's", "root_ca_crl", root_list), ("PCK's", "pck_crl", pck_list)):
    _check = f"collateral.{_member}"
    CASES |= {
        f"CRL: {_name} {what}": case(
            f"{_check}.format",
            lambda w, member=_member, change=change: replace(
                w.sound_papers, **{member: change(getattr(w.sound_papers, member))}
            ),
            intel="it reads the list and leaves the rest" if what == "with a byte more" else "",
        )
        for what, change in {
            "empty": lambda der: b"",
            "cut short": lambda der: der[:-1],
            "with a byte more": lambda der: der + b"\0",
            "in hexadecimal": lambda der: der.hex().encode(),
            "of zeros": lambda der: b"\x30\x82\x01\x00" + bytes(256),
        }.items()
    }
    CASES |= {
        f"CRL: {_name} {what}": case(f"{_check}.{check}", lambda w, make=_list, times=times: make(w, **times), **more)
        for what, check, times, more in (
            ("expired in this second", "expired", {"issued": -40 * DAY, "next_update": 0}, {"intel": STILL_GOOD}),
            ("expired a day ago", "expired", {"issued": -40 * DAY, "next_update": -DAY}, {}),
            ("from the next second", "not_yet_valid", {"issued": 1}, {"alone": True}),
            ("from next year", "not_yet_valid", {"issued": YEAR, "next_update": 2 * YEAR}, {"alone": True}),
        )
    }


def test_negative(negative: Callable[[], None]) -> None:
    negative()


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl"])
def test_every_bit_of_a_revocation_list_counts(worlds: dict[str, Any], name: str) -> None:
    world = worlds["SGX v3"]
    papers = world.papers(pck_crl=CrlRecipe(revoked=[5]), root_crl=CrlRecipe(revoked=[5]))
    assert world.verify(papers=papers).status is TcbStatus.UP_TO_DATE
    crl = getattr(papers, name)
    for at in range(0, len(crl), 3):
        changed = bytearray(crl)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(EvidenceError):
            world.verify(papers=replace(papers, **{name: bytes(changed)}))


def test_revoked_strangers_do_no_harm(world: Any) -> None:
    """The same numbers, on the other authority's list."""
    vendor = world.vendor
    harmless = {
        "root_crl": CrlRecipe(revoked=[vendor.pck().serial, vendor.pck_ca("processor").serial]),
        "pck_crl": CrlRecipe(revoked=[vendor.pck_ca().serial, vendor.pck("processor").serial]),
    }
    assert world.verify(papers=world.papers(**harmless)).status is TcbStatus.UP_TO_DATE
