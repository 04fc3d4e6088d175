"""What verification says of sound quotes, and how exactly it refuses; the other test_dcap files have the long lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import SimulatedRoot
from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.certificates import Party, issue, revocation_list
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

NOW = 1_790_000_000
DAY = 86_400


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


def _pck_chains(vendor: SimulatedVendor) -> dict[str, tuple[tuple[Party, ...], str]]:
    pck, ca, root = vendor.pck(), vendor.pck_ca(), vendor.root
    machine, key = vendor.machine(), vendor.key("pck platform")
    low = (7, 0, *machine.components[2:])
    other_root = party(vendor, "Intel SGX Root CA", None, "other root", path_length=1)
    other_ca = party(vendor, "Intel SGX PCK Platform CA", other_root, "other ca", path_length=0)
    forged_ca = party(vendor, "Intel SGX PCK Platform CA", replace(root, key=vendor.key("x")), "y", path_length=0)
    return {
        "five": ((pck, ca, root, root, root), "pck_chain.format"),
        "leaf as CA": ((pck, pck, root), "pck_chain.shape"),
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
        "another key's certificate": (
            (replace(pck, key=vendor.key("thief")), ca, root),
            "quote.qe_report_signature",
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


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id":"SGX","id":"SGX"}', "NaN", "[" * 100_000, '{"id":"\ud800"}'])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_documents_that_are_none(check: Callable[..., str], document: str, text: str) -> None:
    assert check(**{document: text}) == f"collateral.{document}.format"


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_the_first_and_the_last_second(vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes, part: str) -> None:
    kind: Any = CrlRecipe if part.endswith("crl") else DocumentRecipe
    collateral = vendor.collateral(NOW, CollateralRecipe(**{part: kind(issued=0, next_update=1)}))
    assert verify_quote(sound, collateral, at=NOW, root=root).valid_until == NOW + 1


@pytest.mark.parametrize("at", [-1, 2**63, 253402300800])
def test_a_time_that_is_none(vendor: SimulatedVendor, root: SimulatedRoot, sound: bytes, at: int) -> None:
    with pytest.raises(InputError):
        verify_quote(sound, vendor.collateral(NOW), at=at, root=root)


def test_the_issuer_of_the_revocation_list_must_be_the_quotes(
    check: Callable[..., str], vendor: SimulatedVendor
) -> None:
    sound, processor = vendor.collateral(NOW), vendor.collateral(NOW, CollateralRecipe(ca="processor"))
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


def test_a_root_of_the_same_name_is_another(vendor: SimulatedVendor, root: SimulatedRoot, report: Any) -> None:
    twin = party(vendor, "Intel SGX Root CA", None, "root", path_length=1, validity=vendor.validity(29))
    assert twin.certificate.public_key() == vendor.root.certificate.public_key()
    quote = make_quote(vendor, report(), QuoteRecipe(pck_chain=(vendor.pck(), vendor.pck_ca(), twin)))
    with pytest.raises(EvidenceError) as caught:
        verify_quote(quote, vendor.collateral(NOW), at=NOW, root=root)
    assert caught.value.check == "pck_chain.root"
