"""Verification against everything that a vendor, a thief of one machine's keys, or a lying PCCS could present."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import IntelRoot, SimulatedRoot
from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.certificates import Party, Validity, issue, revocation_list
from ensconce.platform.simulated.collateral import ABSENT, CollateralRecipe, CrlRecipe, DocumentRecipe, tcb_level
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, QuotingEnclave, make_quote

NOW = 1_790_000_000
DAY = 86_400


@pytest.fixture(scope="module")
def root(vendor: SimulatedVendor) -> SimulatedRoot:
    return SimulatedRoot(vendor.root_certificate_der)


@pytest.fixture(scope="module")
def sound(quote: Callable[..., bytes]) -> bytes:
    return quote()


@pytest.fixture(scope="module")
def check(vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes) -> Callable[..., str]:
    """The name of the check that refuses: ``check(recipe)`` with a sound quote, or any quote or collateral."""

    def run(recipe: CollateralRecipe | None = None, *, quote: bytes = sound, **changes: Any) -> str:
        collateral = replace(vendor.collateral(NOW, recipe), **changes)
        with pytest.raises(EvidenceError) as caught:
            verify_quote(quote, collateral, at=NOW, root=root)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
        return caught.value.check

    return run


def party(vendor: SimulatedVendor, name: str, issuer: Party | None, label: str = "thief", **others: Any) -> Party:
    arguments = {"validity": vendor.validity(5), "crl_url": "https://simulated.invalid/crl", "path_length": None}
    return issue(name, vendor.key(label), issuer, **(arguments | others))


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_a_sound_quote_says_who_it_is(vendor: SimulatedVendor, root: SimulatedRoot, report: Any) -> None:
    body: SgxReport = report(mr_enclave=b"\x33" * 32, isv_svn=9, report_data=b"\x44" * 64)
    verdict = verify_quote(make_quote(vendor, body), vendor.collateral(NOW), at=NOW, root=root)
    assert isinstance(verdict, SimulatedVerdict)
    assert not isinstance(verdict, GenuineVerdict)
    assert verdict.report == body
    assert (verdict.tee, verdict.root, verdict.status) == ("sgx", vendor.root_name, TcbStatus.UP_TO_DATE)
    assert (verdict.fmspc, verdict.pce_id, verdict.at) == (vendor.FMSPC.hex().upper(), "0000", NOW)
    assert verdict.ppid == vendor.machine().ppid.hex()
    assert verdict.valid_until == NOW + 30 * DAY


def test_both_authorities_issue_platforms(vendor: SimulatedVendor, root: SimulatedRoot, report: Any) -> None:
    quote = make_quote(vendor, report(), QuoteRecipe(ca="processor"))
    collateral = vendor.collateral(NOW, CollateralRecipe(ca="processor"))
    assert verify_quote(quote, collateral, at=NOW, root=root).status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize("status", [status for status in TcbStatus if not status.name.startswith("TD_")])
def test_every_status_is_a_result(
    vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes, status: TcbStatus
) -> None:
    recipe = CollateralRecipe(tcb_status=status.value, advisory_ids=["SIMULATED-SA-7"])
    verdict = verify_quote(sound, vendor.collateral(NOW, recipe), at=NOW, root=root)
    assert (verdict.status, verdict.advisory_ids) == (status, ("SIMULATED-SA-7",))


def test_the_worse_of_platform_and_quoting_enclave_counts(
    vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes
) -> None:
    collateral = vendor.collateral(NOW, CollateralRecipe(qe_status="OutOfDate"))
    assert verify_quote(sound, collateral, at=NOW, root=root).status is TcbStatus.OUT_OF_DATE


def test_an_enclave_without_init_is_the_policys_business(
    vendor: SimulatedVendor, root: SimulatedRoot, quote: Any
) -> None:
    verdict = verify_quote(quote(flags=Attributes.MODE64BIT), vendor.collateral(NOW), at=NOW, root=root)
    assert isinstance(verdict.report, SgxReport)
    assert not verdict.report.attributes.init


def test_unknown_members_of_signed_documents_are_tolerated(
    vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes
) -> None:
    news = DocumentRecipe(changes={"tcbNovelty": {"a": [1]}})
    collateral = vendor.collateral(NOW, CollateralRecipe(tcb_info=news, qe_identity=news))
    assert verify_quote(sound, collateral, at=NOW, root=root).status is TcbStatus.UP_TO_DATE


def test_the_mirrored_signature_is_the_same_statement(
    vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes
) -> None:
    # ECDSA signatures (r, s) and (r, n - s) are both good: hence no hash of a quote may serve as its identity.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = int.from_bytes(sound[468:500], "big")
    mirrored = sound[:468] + (order - s).to_bytes(32, "big") + sound[500:]
    collateral = vendor.collateral(NOW)
    assert verify_quote(mirrored, collateral, at=NOW, root=root) == verify_quote(sound, collateral, at=NOW, root=root)


# --- the quote --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (12, b"\x00" * 16, "quote.qe_vendor"),
        (48 + 64, b"\xff", "quote.signature"),  # MRENCLAVE
        (48 + 320, b"\xff", "quote.signature"),  # report data
        (48 + 48, b"\x07", "quote.signature"),  # attributes: a debug bit that nobody signed
        (436, b"\x00" * 64, "quote.signature"),  # r = s = 0
        (436, b"\xff" * 64, "quote.signature"),
        (500, b"\x00" * 64, "quote.qe_report_data"),  # attestation key
        (564 + 64, b"\xff", "quote.qe_report_signature"),  # QE report
        (948, b"\x00" * 64, "quote.qe_report_signature"),
        (1014, b"\xff", "quote.qe_report_data"),  # QE authentication data
    ],
)
def test_one_changed_field_of_the_quote(
    check: Callable[..., str], sound: bytes, at: int, value: bytes, expected: str
) -> None:
    assert check(quote=sound[:at] + value + sound[at + len(value) :]) == expected


def test_debug_enclaves_are_refused(check: Callable[..., str], quote: Any) -> None:
    flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
    assert check(quote=quote(flags=flags)) == "quote.debug"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_qe_authentication_data_has_32_bytes(
    check: Callable[..., str], vendor: SimulatedVendor, report: Any, size: int
) -> None:
    assert check(quote=make_quote(vendor, report(), QuoteRecipe(qe_auth_data=bytes(size)))) == "quote.qe_auth_data"


@pytest.mark.parametrize(
    "changes",
    [
        {"mr_signer": bytes(32)},
        {"isv_prod_id": 2},
        {"misc_select": 1},
        {"attributes": Attributes(Attributes.INIT | Attributes.MODE64BIT, 3)},
        {"attributes": Attributes(0x17, 3)},
    ],
)
def test_the_quoting_enclave_must_be_the_vendors(
    check: Callable[..., str], vendor: SimulatedVendor, report: Any, changes: dict[str, Any]
) -> None:
    recipe = QuoteRecipe(quoting_enclave=QuotingEnclave(**changes))
    assert check(quote=make_quote(vendor, report(), recipe)) == "quote.qe_identity"


def test_the_quoting_enclave_must_vouch_for_the_key(
    check: Callable[..., str], vendor: SimulatedVendor, report: Any
) -> None:
    quote = make_quote(vendor, report(), QuoteRecipe(qe_report_data=b"\x01" * 64))
    assert check(quote=quote) == "quote.qe_report_data"


def test_a_quoting_enclave_below_every_level(check: Callable[..., str], vendor: SimulatedVendor, report: Any) -> None:
    quote = make_quote(vendor, report(), QuoteRecipe(quoting_enclave=QuotingEnclave(isv_svn=1)))
    assert check(quote=quote) == "tcb.qe_level"


# --- the PCK chain ----------------------------------------------------------------------------------------------------


def _pck_chains(vendor: SimulatedVendor) -> dict[str, tuple[tuple[Party, ...], str]]:
    pck, ca, root = vendor.pck(), vendor.pck_ca(), vendor.root
    machine, key = vendor.machine(), vendor.key("pck platform")
    low = (7, 0, *machine.components[2:])
    past = Validity(NOW - 10 * DAY, NOW - DAY)
    future = Validity(NOW + DAY, NOW + 10 * DAY)
    other_root = party(vendor, "Intel SGX Root CA", None, "other root", path_length=1)
    other_ca = party(vendor, "Intel SGX PCK Platform CA", other_root, "other ca", path_length=0)
    forged_ca = party(vendor, "Intel SGX PCK Platform CA", replace(root, key=vendor.key("x")), "y", path_length=0)
    return {
        "missing root": ((pck, ca), "pck_chain.shape"),
        "missing CA": ((pck, root), "pck_chain.shape"),
        "leaf alone": ((pck,), "pck_chain.shape"),
        "a certificate too many": ((pck, ca, root, root), "pck_chain.shape"),
        "five": ((pck, ca, root, root, root), "pck_chain.format"),
        "reversed": ((root, ca, pck), "pck_chain.shape"),
        "CA as leaf": ((ca, ca, root), "pck_chain.shape"),
        "leaf as CA": ((pck, pck, root), "pck_chain.shape"),
        "swapped CA": ((pck, vendor.pck_ca("processor"), root), "pck_chain.shape"),
        "issued by the root": (
            (vendor.issue_pck(machine, issuer=root, key=key), root),
            "pck_chain.shape",
        ),
        "issued by the root, with a CA between": (
            (vendor.issue_pck(machine, issuer=root, key=key), ca, root),
            "pck_chain.shape",
        ),
        "foreign CN": (
            (vendor.issue_pck(machine, issuer=ca, key=key, common_name="Intel SGX TCB Signing"), ca, root),
            "pck_chain.shape",
        ),
        "other root": ((vendor.issue_pck(machine, issuer=other_ca, key=key), other_ca, other_root), "pck_chain.root"),
        "other CA key": (
            (vendor.issue_pck(machine, issuer=forged_ca, key=key), forged_ca, root),
            "collateral.pck_crl.issuer",
        ),
        "expired": ((vendor.issue_pck(machine, issuer=ca, key=key, validity=past), ca, root), "pck_chain.expired"),
        "not yet": (
            (vendor.issue_pck(machine, issuer=ca, key=key, validity=future), ca, root),
            "pck_chain.not_yet_valid",
        ),
        "forged leaf": (
            (vendor.issue_pck(machine, issuer=replace(ca, key=vendor.key("x")), key=key), ca, root),
            "pck_chain.signature",
        ),
        "no SGX extension": (
            (party(vendor, "Intel SGX PCK Certificate", ca, "pck platform"), ca, root),
            "pck_chain.extension",
        ),
        "another key's certificate": (
            (replace(pck, key=vendor.key("thief")), ca, root),
            "quote.qe_report_signature",
        ),
        "other FMSPC": (
            (vendor.issue_pck(replace(machine, fmspc=bytes(6)), issuer=ca, key=key), ca, root),
            "collateral.tcb_info.fmspc",
        ),
        "other PCEID": (
            (vendor.issue_pck(replace(machine, pce_id=b"\x00\x01"), issuer=ca, key=key), ca, root),
            "collateral.tcb_info.pce_id",
        ),
        "one component too low": (
            (vendor.issue_pck(replace(machine, components=low, cpu_svn=bytes(low)), issuer=ca, key=key), ca, root),
            "tcb.level",
        ),
        "components and CPUSVN at odds": (
            (
                vendor.issue_pck(replace(machine, components=(7, 0, *machine.components[2:])), issuer=ca, key=key),
                ca,
                root,
            ),
            "pck_chain.extension",
        ),
        "PCE too low": ((vendor.issue_pck(replace(machine, pce_svn=0), issuer=ca, key=key), ca, root), "tcb.level"),
    }


@pytest.mark.parametrize("case", sorted(_pck_chains(SimulatedVendor(bytes(32), NOW))))
def test_pck_chains(check: Callable[..., str], vendor: SimulatedVendor, report: Any, case: str) -> None:
    chain, expected = _pck_chains(vendor)[case]
    assert check(quote=make_quote(vendor, report(), QuoteRecipe(pck_chain=chain))) == expected


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 7])
def test_the_quote_must_carry_its_chain(check: Callable[..., str], sound: bytes, kind: int) -> None:
    assert check(quote=sound[:1046] + bytes([kind]) + sound[1047:]) == "quote.certification_type"


def test_a_chain_in_the_collateral_changes_nothing(vendor: SimulatedVendor, root: SimulatedRoot, report: Any) -> None:
    # dcap-qvl would take this chain in place of the quote's.
    thief = vendor.issue_pck(vendor.machine(), issuer=vendor.pck_ca(), key=vendor.key("thief"))
    stolen = make_quote(
        vendor, report(), QuoteRecipe(pck_chain=(replace(vendor.pck(), key=thief.key), vendor.pck_ca(), vendor.root))
    )
    members = json.loads(vendor.collateral(NOW).to_json())
    members["pck_certificate_chain"] = thief.pem + vendor.pck_ca().pem + vendor.root.pem
    with pytest.raises(EvidenceError) as caught:
        verify_quote(stolen, Collateral.from_json(json.dumps(members).encode()), at=NOW, root=root)
    assert caught.value.check == "quote.qe_report_signature"


# --- who may sign the vendor's documents ------------------------------------------------------------------------------


def _signers(vendor: SimulatedVendor) -> dict[str, tuple[Party, tuple[Party, ...], str]]:
    pck, ca, root = vendor.pck(), vendor.pck_ca(), vendor.root
    below_ca = party(vendor, "Intel SGX TCB Signing", ca)
    other_name = party(vendor, "Intel SGX Something", root)
    other_root = party(vendor, "Intel SGX Root CA", None, "other root", path_length=1)
    own_root = party(vendor, "Intel SGX TCB Signing", other_root)
    forged = party(vendor, "Intel SGX TCB Signing", replace(root, key=vendor.key("x")))
    old = party(vendor, "Intel SGX TCB Signing", root, validity=Validity(NOW - 9 * DAY, NOW - DAY))
    return {
        "a PCK key with its own chain": (pck, (pck, ca, root), "chain.shape"),
        "a PCK key as if below the root": (pck, (pck, root), "chain.shape"),
        "anyone below a PCK CA": (below_ca, (below_ca, ca, root), "chain.shape"),
        "anyone below a PCK CA as if below the root": (below_ca, (below_ca, root), "chain.shape"),
        "a PCK CA": (ca, (ca, root), "chain.shape"),
        "the root": (root, (root, root), "chain.shape"),
        "the root alone": (root, (root,), "chain.shape"),
        "another name below the root": (other_name, (other_name, root), "chain.shape"),
        "reversed": (vendor.tcb_signer, (root, vendor.tcb_signer), "chain.shape"),
        "no root": (vendor.tcb_signer, (vendor.tcb_signer,), "chain.shape"),
        "a certificate too many": (vendor.tcb_signer, (vendor.tcb_signer, root, root), "chain.shape"),
        "nobody": (vendor.tcb_signer, (), "chain.format"),
        "another root": (own_root, (own_root, other_root), "chain.root"),
        "forged": (forged, (forged, root), "chain.signature"),
        "expired": (old, (old, root), "chain.expired"),
        "another key": (replace(vendor.tcb_signer, key=vendor.key("thief")), (vendor.tcb_signer, root), "signature"),
    }


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("case", sorted(_signers(SimulatedVendor(bytes(32), NOW))))
def test_signers(check: Callable[..., str], vendor: SimulatedVendor, document: str, case: str) -> None:
    signer, chain, expected = _signers(vendor)[case]
    recipe = CollateralRecipe(**{document: DocumentRecipe(signer=signer, chain=chain)})  # type: ignore[arg-type]
    assert check(recipe) == f"collateral.{document}.{expected}"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: bytes(64), lambda s: b""])
def test_signatures(
    check: Callable[..., str], vendor: SimulatedVendor, document: str, change: Callable[[bytes], bytes]
) -> None:
    signature = getattr(vendor.collateral(NOW), f"{document}_signature")
    assert check(**{f"{document}_signature": change(signature)}) == f"collateral.{document}.signature"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_document_written_again_is_another(check: Callable[..., str], vendor: SimulatedVendor, document: str) -> None:
    text = json.dumps(json.loads(getattr(vendor.collateral(NOW), document)))
    assert check(**{document: text}) == f"collateral.{document}.signature"


def test_documents_cannot_change_places(check: Callable[..., str], vendor: SimulatedVendor) -> None:
    sound = vendor.collateral(NOW)
    assert check(tcb_info=sound.qe_identity, tcb_info_signature=sound.qe_identity_signature) == "collateral.tcb_info.id"


# --- what the documents say -------------------------------------------------------------------------------------------

_OWN, _OLDER = SimulatedVendor.COMPONENTS, (6, *SimulatedVendor.COMPONENTS[1:])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "TDX"}, "id"),
        ({"id": ABSENT}, "id"),
        ({"version": 2}, "version"),
        ({"version": 4}, "version"),
        ({"version": "3"}, "version"),
        ({"version": 3.0}, "version"),
        ({"tcbType": 1}, "tcb_type"),
        ({"tcbType": False}, "tcb_type"),
        ({"tcbType": ABSENT}, "tcb_type"),
        ({"fmspc": "00606A000000"}, "fmspc"),
        ({"fmspc": "53494D"}, "format"),
        ({"pceId": "0001"}, "pce_id"),
        ({"pceId": ABSENT}, "format"),
        ({"tcbEvaluationDataNumber": -1}, "format"),
        ({"tcbEvaluationDataNumber": True}, "format"),
        ({"issueDate": "2026-01-01"}, "format"),
        ({"nextUpdate": "2020-01-01T00:00:00Z"}, "format"),
        ({"tcbLevels": []}, "levels"),
        ({"tcbLevels": ABSENT}, "levels"),
        ({"tcbLevels": [1]}, "format"),
        ({"tcbLevels": [tcb_level(_OWN[:15], 13, "UpToDate")]}, "levels"),
        ({"tcbLevels": [tcb_level((*_OWN, 0), 13, "UpToDate")]}, "levels"),
        ({"tcbLevels": [tcb_level((256, *_OWN[1:]), 13, "UpToDate")]}, "format"),
        ({"tcbLevels": [tcb_level(_OWN, 70000, "UpToDate")]}, "format"),
        ({"tcbLevels": [tcb_level(_OLDER, 12, "UpToDate"), tcb_level(_OWN, 13, "OutOfDate")]}, "levels"),
        ({"tcbLevels": [tcb_level(_OWN, 13, "UpToDate"), tcb_level(_OWN, 13, "OutOfDate")]}, "levels"),
        ({"tcbLevels": [tcb_level(_OWN, 13, "Excellent")]}, "format"),
    ],
)
def test_tcb_info(check: Callable[..., str], changes: dict[str, object], expected: str) -> None:
    recipe = CollateralRecipe(tcb_info=DocumentRecipe(changes=changes))
    assert check(recipe) == f"collateral.tcb_info.{expected}"


def _qe_level(svn: object, status: str = "UpToDate") -> dict[str, object]:
    return {"tcb": {"isvsvn": svn}, "tcbDate": "2026-01-14T00:00:00Z", "tcbStatus": status}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "TD_QE"}, "id"),
        ({"id": "QVE"}, "id"),
        ({"version": 1}, "version"),
        ({"version": 3}, "version"),
        ({"tcbLevels": []}, "levels"),
        ({"tcbLevels": [_qe_level(7), _qe_level(8, "OutOfDate")]}, "levels"),
        ({"tcbLevels": [_qe_level(8), _qe_level(8, "OutOfDate")]}, "levels"),
        ({"tcbLevels": [_qe_level("8")]}, "format"),
        ({"tcbEvaluationDataNumber": ABSENT}, "format"),
        ({"mrsigner": "00"}, "format"),
    ],
)
def test_qe_identity(check: Callable[..., str], changes: dict[str, object], expected: str) -> None:
    recipe = CollateralRecipe(qe_identity=DocumentRecipe(changes=changes))
    assert check(recipe) in (f"collateral.qe_identity.{expected}", "quote.qe_identity" if "mrsigner" in changes else "")


@pytest.mark.parametrize("recipe", [CollateralRecipe(tcb_status="Revoked"), CollateralRecipe(qe_status="Revoked")])
def test_revoked_platforms_have_no_verdict(check: Callable[..., str], recipe: CollateralRecipe) -> None:
    assert check(recipe) == "tcb.revoked"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id":"SGX","id":"SGX"}', "NaN", "[" * 100_000, '{"id":"\ud800"}'])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_documents_that_are_none(check: Callable[..., str], document: str, text: str) -> None:
    expected = "id" if "ud800" in ascii(text) else "format"
    assert check(**{document: text}) == f"collateral.{document}.{expected}"


# --- time -------------------------------------------------------------------------------------------------------------

_DATED = [
    ("tcb_info", DocumentRecipe, "collateral.tcb_info"),
    ("qe_identity", DocumentRecipe, "collateral.qe_identity"),
    ("root_crl", CrlRecipe, "collateral.root_ca_crl"),
    ("pck_crl", CrlRecipe, "collateral.pck_crl"),
]


@pytest.mark.parametrize(("part", "kind", "name"), _DATED)
def test_the_future_and_the_past(check: Callable[..., str], part: str, kind: Any, name: str) -> None:
    assert check(CollateralRecipe(**{part: kind(issued=1)})) == f"{name}.not_yet_valid"
    assert check(CollateralRecipe(**{part: kind(next_update=0)})) == f"{name}.expired"


@pytest.mark.parametrize(("part", "kind", "name"), _DATED)
def test_the_first_and_the_last_second(
    vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes, part: str, kind: Any, name: str
) -> None:
    collateral = vendor.collateral(NOW, CollateralRecipe(**{part: kind(issued=0, next_update=1)}))
    assert verify_quote(sound, collateral, at=NOW, root=root).valid_until == NOW + 1


@pytest.mark.parametrize("at", [-1, 2**63, 253402300800])
def test_a_time_that_is_none(vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes, at: int) -> None:
    with pytest.raises(InputError):
        verify_quote(sound, vendor.collateral(NOW), at=at, root=root)


# --- revocation -------------------------------------------------------------------------------------------------------


def test_each_certificate_can_be_revoked(check: Callable[..., str], vendor: SimulatedVendor) -> None:
    def root_crl(revoked: Party) -> CollateralRecipe:
        return CollateralRecipe(root_crl=CrlRecipe(revoked=[revoked.serial]))

    assert check(CollateralRecipe(pck_crl=CrlRecipe(revoked=[vendor.pck().serial]))) == "pck_chain.revoked"
    assert check(root_crl(vendor.pck_ca())) == "pck_chain.revoked"
    assert check(root_crl(vendor.tcb_signer)) == "collateral.tcb_info.chain.revoked"
    assert check(root_crl(vendor.root)) == "pck_chain.revoked"


def test_revocation_lists_must_be_the_authoritys(check: Callable[..., str], vendor: SimulatedVendor) -> None:
    sound = vendor.collateral(NOW)
    forged = replace(vendor.pck_ca(), key=vendor.key("thief"))
    assert check(CollateralRecipe(pck_crl=CrlRecipe(issuer=forged))) == "collateral.pck_crl.signature"
    forged = replace(vendor.root, key=vendor.key("thief"))
    assert check(CollateralRecipe(root_crl=CrlRecipe(issuer=forged))) == "collateral.root_ca_crl.signature"
    assert check(CollateralRecipe(ca="processor")) == "collateral.pck_crl.issuer"
    assert check(pck_crl=sound.root_ca_crl, root_ca_crl=sound.pck_crl) == "collateral.root_ca_crl.issuer"
    assert check(pck_crl=sound.root_ca_crl) == "collateral.pck_crl.issuer"
    processor = vendor.collateral(NOW, CollateralRecipe(ca="processor"))
    assert check(pck_crl_issuer_chain=processor.pck_crl_issuer_chain) == "collateral.pck_crl.issuer"
    assert check(pck_crl_issuer_chain=sound.tcb_info_issuer_chain) == "collateral.pck_crl.chain.shape"


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl"])
@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\x01\x00" + bytes(256), b"0" * 100])
def test_revocation_lists_that_are_none(check: Callable[..., str], member: str, data: bytes) -> None:
    assert check(**{member: data}) == f"collateral.{member}.format"


def test_a_revocation_list_that_never_expires(check: Callable[..., str], vendor: SimulatedVendor) -> None:
    backwards = revocation_list(vendor.pck_ca(), issued=NOW, next_update=NOW + 1)
    # nextUpdate is the second of the two times in the list: make it the first one's equal.
    times = [moment.strftime("%y%m%d%H%M%SZ").encode() for moment in _times(backwards)]
    assert check(pck_crl=backwards.replace(times[1], times[0])) == "collateral.pck_crl.format"


def _times(der: bytes) -> list[Any]:
    crl = x509.load_der_x509_crl(der)
    return [crl.last_update_utc, crl.next_update_utc]


# --- roots ------------------------------------------------------------------------------------------------------------


def test_simulated_evidence_is_not_genuine(vendor: SimulatedVendor, sound: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify_quote(sound, vendor.collateral(NOW), at=NOW, root=IntelRoot())
    assert caught.value.check == "pck_chain.root"


def test_another_machines_evidence_is_not_this_ones(vendor: SimulatedVendor, sound: bytes, root: SimulatedRoot) -> None:
    other = SimulatedVendor(b"\1" * 32, NOW)
    with pytest.raises(EvidenceError) as caught:
        verify_quote(sound, vendor.collateral(NOW), at=NOW, root=SimulatedRoot(other.root_certificate_der))
    assert caught.value.check == "pck_chain.root"
    with pytest.raises(EvidenceError) as caught:
        verify_quote(sound, other.collateral(NOW), at=NOW, root=root)
    assert caught.value.check == "collateral.tcb_info.chain.root"


def test_a_root_of_the_same_name_is_another(vendor: SimulatedVendor, root: SimulatedRoot, report: Any) -> None:
    twin = party(vendor, "Intel SGX Root CA", None, "root", path_length=1, validity=vendor.validity(29))
    assert twin.certificate.public_key() == vendor.root.certificate.public_key()
    quote = make_quote(vendor, report(), QuoteRecipe(pck_chain=(vendor.pck(), vendor.pck_ca(), twin)))
    with pytest.raises(EvidenceError) as caught:
        verify_quote(quote, vendor.collateral(NOW), at=NOW, root=root)
    assert caught.value.check == "pck_chain.root"


def test_no_changed_byte_changes_the_verdict(vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes) -> None:
    collateral = vendor.collateral(NOW)
    right = verify_quote(sound, collateral, at=NOW, root=root)
    accepted = 0
    # Every byte up to the certificates, and a sample of those: 4,500 verifications would take too long here.
    places = [*range(0, 1052, 3), *range(1052, len(sound), 29)]
    for place in places:
        changed = bytearray(sound)
        changed[place] ^= 0x04
        try:
            verdict = verify_quote(bytes(changed), collateral, at=NOW, root=root)
        except EvidenceError:
            continue
        accepted += 1
        assert place >= 1052
        assert verdict == right
    assert accepted < len(places) // 10


def test_the_quote_is_what_is_verified(vendor: SimulatedVendor, sound: bytes) -> None:
    assert parse_quote(sound).certification_data.startswith(vendor.pck().certificate.public_bytes(Encoding.PEM))
