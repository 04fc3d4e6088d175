"""Certificate chains that a verifier of DCAP must not accept: each differs from a sound one in one respect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dcap_qvl
import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import IntelRoot, SimulatedRoot
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.certificates import Party, Validity, issue
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

NOW = 1_790_000_000
YEAR = 365 * 86_400
EXPIRED = Validity(NOW - YEAR, NOW - 1)
FUTURE = Validity(NOW + 1, NOW + YEAR)
PCK, SIGNER = "Intel SGX PCK Certificate", "Intel SGX TCB Signing"
IN_ANY_ORDER = "it puts a chain in order itself"
ONE_CHAIN = "it is given one chain for both documents"
NO_BEGIN = "it looks at the end of a PCK chain's validity alone"


class Blank(Party):
    """Somebody whose certificate is left out."""

    @property
    def pem(self) -> str:
        return ""


def case(check: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, **more}


def pck(w: Any, machine: Any = None, **changes: Any) -> Party:
    """A PCK certificate of one's own making, with the key that signs the QE report."""
    arguments = {"issuer": w.vendor.pck_ca(), "key": w.vendor.key("pck platform")} | changes
    made: Party = w.vendor.issue_pck(machine or w.vendor.machine(), **arguments)
    return made


def authority(w: Any, issuer: Party, **changes: Any) -> Party:
    """Named as the authority of PCK certificates, and one, with the key that it has, unless another is given."""
    arguments = {"validity": w.vendor.validity(15), "path_length": 0, "key": w.vendor.key("pck platform ca")} | changes
    key = arguments.pop("key")
    return issue("Intel SGX PCK Platform CA", key, issuer, crl_url="https://simulated.invalid/x.der", **arguments)


def below(w: Any, ca: Party) -> bytes:
    """A quote of a machine that this authority certified."""
    quote: bytes = w.with_chain(pck(w, issuer=ca), ca, w.vendor.root)
    return quote


def below_with_papers(w: Any, ca: Party) -> tuple[bytes, Collateral]:
    """The same with the authority's certificate also where the revocation list's issuer is."""
    return below(w, ca), replace(w.sound_papers, pck_crl_issuer_chain=ca.pem + w.vendor.root.pem)


def other_last_digit(w: Any) -> bytes:
    """The root's certificate, in a base64 of which Python overlooks that it is none."""
    at = w.sound.index(b"=", w.at["certificates"]) - 1
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed: bytes = w.patched(at, digits[digits.index(w.sound[at : at + 1]) ^ 1 :][:1])
    return changed


def self_signed(w: Any) -> Party:
    key = w.vendor.key("pck platform")
    lone = w.vendor.issue_pck(w.vendor.machine(), issuer=w.vendor.root, key=key)
    name = Party(lone.certificate, key)
    made: Party = w.vendor.issue_pck(w.vendor.machine(), issuer=name, key=key)
    return made


def components(w: Any, values: tuple[int, ...], cpu_svn: bytes | None = None) -> Any:
    return replace(w.vendor.machine(), components=values, cpu_svn=cpu_svn or bytes(values))


CASES = {
    "chain: another vendor's quote": case(
        "pck_chain.root", lambda w: make_quote(w.stranger, w.report(), QuoteRecipe())
    ),
    "chain: another vendor's collateral": case(
        "collateral.tcb_info.chain.root",
        lambda w: replace(w.sound_papers, tcb_info_issuer_chain=w.stranger.tcb_signer.pem + w.stranger.root.pem),
    ),
    "chain: another root of the same name and key": case(
        "pck_chain.root",
        lambda w: w.with_chain(
            w.vendor.pck(),
            w.vendor.pck_ca(),
            issue(
                "Intel SGX Root CA",
                w.vendor.key("root"),
                None,
                validity=w.vendor.validity(29),
                crl_url="https://simulated.invalid/x.der",
                path_length=1,
            ),
        ),
        alone=True,
    ),
    "chain: PCK self-signed": case(
        "pck_chain.shape", lambda w: w.with_chain(self_signed(w), w.vendor.pck_ca(), w.vendor.root)
    ),
    "chain: PCK alone": case("pck_chain.shape", lambda w: w.with_chain(w.vendor.pck())),
    "chain: no root": case("pck_chain.shape", lambda w: w.with_chain(w.vendor.pck(), w.vendor.pck_ca()), alone=True),
    "chain: no authority": case("pck_chain.shape", lambda w: w.with_chain(w.vendor.pck(), w.vendor.root)),
    "chain: reversed": case(
        "pck_chain.shape",
        lambda w: w.quote(
            pck_chain=(Party(w.vendor.root.certificate, w.vendor.pck().key), w.vendor.pck_ca(), w.vendor.pck())
        ),
    ),
    "chain: root twice": case(
        "pck_chain.shape",
        lambda w: w.with_chain(w.vendor.pck(), w.vendor.pck_ca(), w.vendor.root, w.vendor.root),
        alone=True,
    ),
    "chain: authority twice": case(
        "pck_chain.shape",
        lambda w: w.with_chain(w.vendor.pck(), w.vendor.pck_ca(), w.vendor.pck_ca(), w.vendor.root),
        alone=True,
    ),
    "chain: five certificates": case(
        "pck_chain.format",
        lambda w: w.with_chain(w.vendor.pck(), w.vendor.pck_ca(), *(w.vendor.root,) * 3),
        alone=True,
    ),
    "chain: none": case(
        "pck_chain.format", lambda w: w.with_chain(Blank(w.vendor.pck().certificate, w.vendor.pck().key))
    ),
    "chain: a last digit with a bit too many": case("pck_chain.format", other_last_digit, intel="it overlooks the bit"),
    "chain: PCK damaged": case("pck_chain.format", lambda w: w.patched(w.sound.index(b"MII") + 48, b"A")),
    "chain: PCK CA swap": case(
        "pck_chain.shape", lambda w: w.with_chain(w.vendor.pck(), w.vendor.pck_ca("processor"), w.vendor.root)
    ),
    "chain: CA as leaf": case(
        "pck_chain.shape", lambda w: w.with_chain(w.vendor.pck_ca(), w.vendor.pck_ca(), w.vendor.root)
    ),
    "chain: CA as leaf, with the name of one": case(
        "pck_chain.extension",
        lambda w: w.with_chain(w.leaf(PCK, w.vendor.pck_ca(), ca=True), w.vendor.pck_ca(), w.vendor.root),
    ),
    "chain: CA as leaf, a PCK otherwise": case(
        "chain.verification",
        lambda w: w.with_chain(
            issue(
                PCK,
                w.vendor.key("pck platform"),
                w.vendor.pck_ca(),
                validity=w.vendor.validity(7),
                crl_url="https://simulated.invalid/x.der",
                path_length=0,
                extension=w.vendor.machine().extension(),
            ),
            w.vendor.pck_ca(),
            w.vendor.root,
        ),
        intel="it does not ask whether a leaf is one",
    ),
    "chain: leaf as CA": case(
        "pck_chain.shape",
        lambda w: w.with_chain(
            pck(w, issuer=w.vendor.pck(), key=w.vendor.key("x")), w.vendor.pck(), w.vendor.pck_ca(), w.vendor.root
        ),
    ),
    "chain: leaf as CA, with the name of one": case(
        "chain.verification",
        lambda w: below_with_papers(w, authority(w, w.vendor.root, path_length=None)),
        intel="it does not ask whether an authority is one",
    ),
    "chain: TCB signer as PCK": case(
        "pck_chain.shape", lambda w: w.with_chain(w.vendor.tcb_signer, w.vendor.pck_ca(), w.vendor.root)
    ),
    "chain: PCK issued by the root": case(
        "pck_chain.shape",
        lambda w: w.with_chain(pck(w, issuer=w.vendor.root), w.vendor.root),
        alone=True,
    ),
    "chain: PCK issued by the root, an authority between": case(
        "pck_chain.shape",
        lambda w: w.with_chain(pck(w, issuer=w.vendor.root), w.vendor.pck_ca(), w.vendor.root),
        alone=True,
    ),
    "chain: PCK of another name": case(
        "pck_chain.shape",
        lambda w: w.with_pck(common_name="Some Other Certificate"),
        alone=True,
    ),
    "chain: PCK named as the TCB signer": case("pck_chain.shape", lambda w: w.with_pck(common_name=SIGNER), alone=True),
    "chain: PCK that its authority never signed": case(
        "pck_chain.signature",
        lambda w: w.with_pck(issuer=Party(w.vendor.pck_ca().certificate, w.stranger.root.key)),
    ),
    "chain: authority that the root never signed": case(
        "pck_chain.signature",
        lambda w: below_with_papers(w, authority(w, Party(w.vendor.root.certificate, w.stranger.root.key))),
    ),
    "chain: authority of another key": case(
        "collateral.pck_crl.issuer", lambda w: below(w, authority(w, w.vendor.root, key=w.vendor.key("x")))
    ),
    "chain: another key's certificate": case(
        "quote.qe_report_signature",
        lambda w: w.with_chain(Party(w.vendor.pck().certificate, w.vendor.key("x")), w.vendor.pck_ca(), w.vendor.root),
    ),
    "chain: no SGX extension": case(
        "pck_chain.extension",
        lambda w: w.with_chain(w.leaf(PCK, w.vendor.pck_ca()), w.vendor.pck_ca(), w.vendor.root),
    ),
    "chain: PCK expired": case("pck_chain.expired", lambda w: w.with_pck(validity=EXPIRED)),
    "chain: PCK not yet valid": case("pck_chain.not_yet_valid", lambda w: w.with_pck(validity=FUTURE), intel=NO_BEGIN),
    "chain: PCK CA expired": case(
        "collateral.pck_crl.chain.expired",
        lambda w: below_with_papers(w, authority(w, w.vendor.root, validity=EXPIRED)),
    ),
    "chain: PCK CA expired, in the quote alone": case(
        "pck_chain.expired", lambda w: below(w, authority(w, w.vendor.root, validity=EXPIRED))
    ),
    "chain: PCK CA not yet valid, in the quote alone": case(
        "pck_chain.not_yet_valid", lambda w: below(w, authority(w, w.vendor.root, validity=FUTURE)), intel=NO_BEGIN
    ),
    "chain: PCK of another FMSPC": case(
        "collateral.tcb_info.fmspc", lambda w: w.with_pck(replace(w.vendor.machine(), fmspc=b"SIM\0\0\2"))
    ),
    "chain: PCK of another PCEID": case(
        "collateral.tcb_info.pce_id", lambda w: w.with_pck(replace(w.vendor.machine(), pce_id=b"\0\1")), alone=True
    ),
    "chain: PCK below all levels by one component": case(
        "tcb.level", lambda w: w.with_pck(components(w, (7, 0, *w.vendor.COMPONENTS[2:])))
    ),
    "chain: PCK below all levels by PCESVN": case(
        "tcb.level", lambda w: w.with_pck(replace(w.vendor.machine(), pce_svn=0))
    ),
    "chain: PCK with components better than its CPUSVN": case(
        "pck_chain.extension",
        lambda w: w.with_pck(components(w, (255,) * 16, w.vendor.cpu_svn)),
        alone=True,
        intel="it compares the components alone",
    ),
    "chain: PCK with components worse than its CPUSVN": case(
        "pck_chain.extension", lambda w: w.with_pck(components(w, (0,) * 16, w.vendor.cpu_svn)), alone=True
    ),
    "chain: the list's issuer is another authority": case(
        "collateral.pck_crl.issuer",
        lambda w: w.papers(ca="processor"),
    ),
    "chain: the list's issuer is no authority": case(
        "collateral.pck_crl.chain.shape",
        lambda w: replace(w.sound_papers, pck_crl_issuer_chain=w.sound_papers.tcb_info_issuer_chain),
        alone=True,
        intel="it is not given that chain",
    ),
    "chain: the list's issuer has the authority's name and key, and nobody's signature": case(
        "collateral.pck_crl.chain.signature",
        lambda w: replace(
            w.sound_papers,
            pck_crl_issuer_chain=authority(w, Party(w.vendor.root.certificate, w.stranger.root.key)).pem
            + w.vendor.root.pem,
        ),
        alone=True,
        intel="it is not given that chain",
    ),
}


def signed_by(document: str, signer: Party, chain: Any = None) -> dict[str, DocumentRecipe]:
    return {document: DocumentRecipe(signer=signer, chain=chain)}


def presented(w: Any, document: str, *chain: Party) -> Collateral:
    papers: Collateral = w.papers(**{document: DocumentRecipe(chain=chain)})
    return papers


ROLES = {
    # The platform's own PCK key: one that was extracted would judge itself up to date.
    "the PCK, with its chain": lambda w, d: signed_by(
        d, w.vendor.pck(), (w.vendor.pck(), w.vendor.pck_ca(), w.vendor.root)
    ),
    "a leaf of the PCK CA, named as the TCB signer": lambda w, d: signed_by(
        d, w.leaf(SIGNER, w.vendor.pck_ca()), (w.leaf(SIGNER, w.vendor.pck_ca()), w.vendor.pck_ca(), w.vendor.root)
    ),
    "a leaf of the root of another name": lambda w, d: signed_by(d, w.leaf("Intel SGX Something Else", w.vendor.root)),
}

for _document in ("tcb_info", "qe_identity"):
    _check = f"collateral.{_document}.chain"
    _not_shown = ONE_CHAIN if _document == "qe_identity" else ""

    def _papers(made: Any, document: str = _document) -> Any:
        return lambda w: w.papers(**made(w, document))

    def _shown(chain: Callable[[SimulatedVendor], tuple[Party, ...]], document: str = _document) -> Any:
        return lambda w: presented(w, document, *chain(w.vendor))

    CASES |= {
        f"role confusion: {_document} signed by {role}": case(f"{_check}.shape", _papers(made), alone=True)
        for role, made in ROLES.items()
    }
    CASES |= {
        f"role confusion: {_document} signed by the PCK, without its CA": case(
            f"{_check}.shape", _papers(lambda w, d: signed_by(d, w.vendor.pck(), (w.vendor.pck(), w.vendor.root)))
        ),
        f"role confusion: {_document} signed by the PCK CA": case(
            f"{_check}.shape", _papers(lambda w, d: signed_by(d, w.vendor.pck_ca()))
        ),
        f"role confusion: {_document} signed by the root": case(
            f"{_check}.shape", _papers(lambda w, d: signed_by(d, w.vendor.root, (w.vendor.root, w.vendor.root)))
        ),
        f"chain: {_document}'s of nobody": case(f"{_check}.format", _shown(lambda v: ()), intel=_not_shown),
        f"chain: {_document}'s without root": case(
            f"{_check}.shape", _shown(lambda v: (v.tcb_signer,)), alone=True, intel=_not_shown
        ),
        f"chain: {_document}'s without signer": case(f"{_check}.shape", _shown(lambda v: (v.root,)), intel=_not_shown),
        f"chain: {_document}'s reversed": case(
            f"{_check}.shape", _shown(lambda v: (v.root, v.tcb_signer)), intel=_not_shown or IN_ANY_ORDER
        ),
        f"chain: {_document}'s with one too many": case(
            f"{_check}.shape", _shown(lambda v: (v.tcb_signer, v.pck_ca(), v.root)), alone=True, intel=_not_shown
        ),
        f"chain: {_document}'s with the root twice": case(
            f"{_check}.shape", _shown(lambda v: (v.tcb_signer, v.root, v.root)), alone=True, intel=_not_shown
        ),
        f"chain: {_document}'s signer that the root never signed": case(
            f"{_check}.signature",
            _papers(lambda w, d: signed_by(d, w.leaf(SIGNER, Party(w.vendor.root.certificate, w.stranger.root.key)))),
        ),
        f"chain: {_document}'s signer expired": case(
            f"{_check}.expired", _papers(lambda w, d: signed_by(d, w.leaf(SIGNER, w.vendor.root, validity=EXPIRED)))
        ),
        f"chain: {_document}'s signer not yet valid": case(
            f"{_check}.not_yet_valid",
            _papers(lambda w, d: signed_by(d, w.leaf(SIGNER, w.vendor.root, validity=FUTURE))),
        ),
    }


def test_negative(negative: Callable[[], None]) -> None:
    negative()


def test_nothing_simulated_is_anything_under_intels_root(world: Any) -> None:
    for trusted in (IntelRoot(), SimulatedRoot(world.stranger.root_certificate_der)):
        with pytest.raises(EvidenceError) as caught:
            verify_quote(world.sound, world.sound_papers, at=NOW, root=trusted)
        assert caught.value.check == "pck_chain.root"


def test_a_root_that_has_expired(world: Any) -> None:
    """Its documents are of that day; the certificates below it had less time still."""
    late = NOW + 30 * YEAR
    papers = world.vendor.collateral(late, CollateralRecipe(tee="tdx" if world.tdx else "sgx"))
    with pytest.raises(EvidenceError) as caught:
        world.verify(papers=papers, at=late)
    assert caught.value.check == "collateral.tcb_info.chain.expired"


def test_a_chain_in_the_collateral_changes_nothing(world: Any) -> None:
    """dcap-qvl alone takes it in place of the quote's, and so another key's for the machine's."""
    vendor = world.vendor
    thief = world.vendor.issue_pck(vendor.machine(), issuer=vendor.pck_ca(), key=vendor.key("thief"))
    stolen = world.with_chain(Party(vendor.pck().certificate, thief.key), vendor.pck_ca(), vendor.root)
    members = json.loads(world.sound_papers.to_json())
    members["pck_certificate_chain"] = thief.pem + vendor.pck_ca().pem + vendor.root.pem
    text = json.dumps(members)
    bundle = dcap_qvl.QuoteCollateralV3.from_json(text)
    dcap_qvl.verify_with_root_ca(stolen, bundle, vendor.root_certificate_der, NOW)
    assert world.refused(stolen, Collateral.from_json(text.encode())) == "quote.qe_report_signature"
