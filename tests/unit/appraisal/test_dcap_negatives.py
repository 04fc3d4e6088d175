"""What a verifier of DCAP quotes must not accept, made to order on the simulated platform.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import IntelRoot, SimulatedRoot, TrustRoot
from ensconce.appraisal.verdict import SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.certificates import Party, Validity, issue, sign_raw
from ensconce.platform.simulated.collateral import ABSENT, CollateralRecipe, CrlRecipe, DocumentRecipe, tcb_level
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, QuotingEnclave, make_quote

NOW = 1_790_000_000
DAY = 86_400
YEAR = 365 * DAY
VENDOR = SimulatedVendor(b"the seed of test_dcap_negatives!", NOW - YEAR)
ROOT = SimulatedRoot(VENDOR.root_certificate_der)
STRANGER = SimulatedVendor(b"another vendor, another root key", NOW - YEAR)

# Offsets in a version 3 quote.
BODY, SIGNATURE_SIZE = 48, 432
SIGNATURE, KEY, QE_REPORT, QE_SIGNATURE, AUTH_SIZE = 436, 500, 564, 948, 1012
CERT_TYPE, CERT_SIZE = 1014 + 32, 1016 + 32


def report(**changes: Any) -> SgxReport:
    sound = SgxReport(
        cpu_svn=VENDOR.cpu_svn,
        misc_select=0,
        isv_ext_prod_id=bytes(16),
        attributes=Attributes(Attributes.INIT | Attributes.MODE64BIT, 3),
        mr_enclave=b"\x11" * 32,
        mr_signer=b"\x22" * 32,
        config_id=bytes(64),
        isv_prod_id=7,
        isv_svn=3,
        config_svn=0,
        isv_family_id=bytes(16),
        report_data=bytes(range(64)),
    )
    return replace(sound, **changes)


def quote(recipe: QuoteRecipe | None = None, **changes: Any) -> bytes:
    return make_quote(VENDOR, report(**changes), recipe)


def collateral(**recipe: Any) -> Collateral:
    return VENDOR.collateral(NOW, CollateralRecipe(**recipe))


def verify(
    data: bytes | None = None, papers: Collateral | None = None, *, at: int = NOW, root: TrustRoot = ROOT
) -> Verdict:
    return verify_quote(data or quote(), papers or collateral(), at=at, root=root)


def refused(
    data: bytes | None = None, papers: Collateral | None = None, *, at: int = NOW, root: TrustRoot = ROOT
) -> str:
    """The name of the check that refuses; the test fails if none does."""
    with pytest.raises(EvidenceError) as refusal:
        verify(data, papers, at=at, root=root)
    assert refusal.value.problem
    assert refusal.value.check != "quote.verification", f"no name for: {refusal.value.found}"
    return refusal.value.check


# The sound case: without it, everything below would show nothing.


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_the_sound_case_is_accepted(ca: Any) -> None:
    verdict = verify(quote(QuoteRecipe(ca=ca)), collateral(ca=ca))
    assert type(verdict) is SimulatedVerdict
    assert verdict.root == VENDOR.root_name
    assert verdict.status is TcbStatus.UP_TO_DATE
    assert verdict.advisory_ids == ()
    assert verdict.report == report()
    assert (verdict.fmspc, verdict.pce_id) == (VENDOR.FMSPC.hex().upper(), VENDOR.PCE_ID.hex().upper())
    assert verdict.ppid == VENDOR.machine().ppid.hex()
    assert verdict.valid_until == NOW + 30 * DAY


# Roots.


def test_simulated_evidence_is_nothing_under_intels_root() -> None:
    assert refused(root=IntelRoot()).endswith(".root")


def test_evidence_of_another_root_of_the_same_name() -> None:
    assert refused(root=SimulatedRoot(STRANGER.root_certificate_der)).endswith(".root")


def test_quote_of_another_vendor_with_our_collateral() -> None:
    assert refused(make_quote(STRANGER, report())).endswith(".root")


def test_collateral_of_another_vendor_with_our_quote() -> None:
    assert refused(papers=STRANGER.collateral(NOW)).endswith(".root")


# TCB status: each is data for the policy; Revoked, unknown ones and none at all are refusals.


@pytest.mark.parametrize("status", [status for status in TcbStatus if not status.startswith("TD")])
def test_each_status_is_reported(status: TcbStatus) -> None:
    verdict = verify(papers=collateral(tcb_status=status.value, advisory_ids=["SIMULATED-SA-00002"]))
    assert verdict.status is status
    assert verdict.advisory_ids == ("SIMULATED-SA-00002",)


def test_a_revoked_level_is_refused() -> None:
    assert refused(papers=collateral(tcb_status="Revoked")) == "tcb.revoked"


@pytest.mark.parametrize("status", ["uptodate", "", "Fine", "UpToDate "])
def test_an_unknown_status_is_refused(status: str) -> None:
    assert refused(papers=collateral(tcb_status=status)) in ("tcb.status", "collateral.tcb_info.format")


@pytest.mark.parametrize("status", ["TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"])
def test_a_status_of_trust_domains_is_no_better_than_up_to_date_for_sgx(status: str) -> None:
    try:
        verdict = verify(papers=collateral(tcb_status=status))
    except EvidenceError:
        return
    assert verdict.status.value == status


def levels(*rows: dict[str, object]) -> Collateral:
    return collateral(tcb_info=DocumentRecipe(changes={"tcbLevels": list(rows)}))


def own_level(status: str = "UpToDate", **changes: int) -> dict[str, object]:
    components = list(VENDOR.COMPONENTS)
    for name, value in changes.items():
        if name != "pce_svn":
            components[int(name.removeprefix("c"))] += value
    return tcb_level(components, VENDOR.PCE_SVN + changes.get("pce_svn", 0), status)


@pytest.mark.parametrize("component", [0, 1, 2, 3, 6, 7, 15])
def test_below_the_level_by_one_component(component: int) -> None:
    """Components 4 and 5 are at 255 already."""
    assert refused(papers=levels(own_level(**{f"c{component}": 1}))) == "tcb.level"


def test_below_the_level_by_the_pce() -> None:
    assert refused(papers=levels(own_level(pce_svn=1))) == "tcb.level"


def test_the_next_level_down_counts_when_the_first_is_out_of_reach() -> None:
    verdict = verify(papers=levels(own_level(c0=1), own_level("SWHardeningNeeded", c0=-1)))
    assert verdict.status is TcbStatus.SW_HARDENING_NEEDED


def test_a_revoked_lower_level_counts() -> None:
    assert refused(papers=levels(own_level(c0=1), own_level("Revoked", c0=-1))) == "tcb.revoked"


def test_levels_out_of_order_are_refused() -> None:
    """The first match decides, so a lower level listed first would hide what the own level says."""
    papers = levels(own_level("UpToDate", c0=-1), own_level("Revoked"))
    assert refused(papers=papers) == "collateral.tcb_info.levels"


def test_no_levels_are_refused() -> None:
    assert refused(papers=levels()) == "collateral.tcb_info.levels"


@pytest.mark.parametrize("count", [0, 15, 17])
def test_a_level_with_another_number_of_components(count: int) -> None:
    """dcap-qvl once compared as many as there were (GHSA-6q6c-vvf9-fj3w)."""
    row = tcb_level([0] * count, 0, "UpToDate")
    assert refused(papers=levels(row)) == "collateral.tcb_info.levels"


@pytest.mark.parametrize("svn", [-1, 256, "7", 7.0, True, None])
def test_a_component_that_is_no_byte(svn: object) -> None:
    row = own_level()
    row["tcb"]["sgxtcbcomponents"][0]["svn"] = svn  # type: ignore[index]
    assert refused(papers=levels(row)).startswith("collateral.tcb_info.")


# TCB info: who it is for, and what it is.


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"fmspc": "00606A000000"}, "fmspc"),
        ({"pceId": "0001"}, "pce_id"),  # dcap-qvl alone: accepted
        ({"version": 2}, "version"),  # dcap-qvl alone: accepted
        ({"version": 4}, "version"),  # dcap-qvl alone: accepted
        ({"version": "3"}, "version"),
        ({"version": ABSENT}, "version"),
        ({"id": "TDX"}, "id"),
        ({"id": ABSENT}, "id"),
        ({"tcbType": 1}, "tcb_type"),  # dcap-qvl and Intel alone: accepted
        ({"tcbType": ABSENT}, "tcb_type"),
        ({"fmspc": ABSENT}, "format"),
        ({"fmspc": "53494D0000"}, "format"),
        ({"tcbEvaluationDataNumber": ABSENT}, "format"),
        ({"tcbEvaluationDataNumber": -1}, "format"),
        ({"issueDate": ABSENT}, "format"),
        ({"issueDate": "yesterday"}, "format"),
        ({"nextUpdate": "2027-01-01"}, "format"),
        ({"tcbLevels": "none"}, "levels"),
        ({"tcbLevels": ABSENT}, "levels"),
    ],
)
def test_tcb_info_of_another_kind(changes: Mapping[str, object], check: str) -> None:
    papers = collateral(tcb_info=DocumentRecipe(changes=changes))
    assert refused(papers=papers) == f"collateral.tcb_info.{check}"


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        ({"id": "TD_QE"}, "collateral.qe_identity.id"),
        ({"id": "QVE"}, "collateral.qe_identity.id"),
        ({"version": 1}, "collateral.qe_identity.version"),
        ({"version": 3}, "collateral.qe_identity.version"),
        ({"mrsigner": "00" * 32}, "quote.qe_identity"),
        ({"mrsigner": "00" * 31}, ("quote.qe_identity", "collateral.qe_identity.format")),
        ({"mrsigner": ABSENT}, "collateral.qe_identity.format"),
        ({"isvprodid": 2}, "quote.qe_identity"),
        ({"miscselect": "00000001"}, "quote.qe_identity"),
        ({"attributes": "15000000000000000000000000000000"}, None),  # INIT and MODE64BIT: the latter is masked away
        ({"attributes": "01000000000000000000000000000000"}, "quote.qe_identity"),
        ({"attributes": "91000000000000000000000000000000"}, "quote.qe_identity"),
        ({"tcbLevels": []}, "collateral.qe_identity.levels"),
        (
            {"tcbLevels": [{"tcb": {"isvsvn": 9}, "tcbDate": "2026-01-14T00:00:00Z", "tcbStatus": "UpToDate"}]},
            ("tcb.qe_level", "tcb.level"),
        ),
        ({"issueDate": "2026-13-01T00:00:00Z"}, "collateral.qe_identity.format"),
        ({"tcbEvaluationDataNumber": ABSENT}, "collateral.qe_identity.format"),
    ],
)
def test_qe_identity_of_another_kind(changes: Mapping[str, object], checks: str | tuple[str, ...] | None) -> None:
    papers = collateral(qe_identity=DocumentRecipe(changes=changes))
    if checks is None:
        assert verify(papers=papers).status is TcbStatus.UP_TO_DATE
    else:
        assert refused(papers=papers) in ((checks,) if isinstance(checks, str) else checks)


def test_qe_levels_out_of_order_are_refused() -> None:
    """dcap-qvl and Intel's library alone: the first match decides."""
    rows = [
        {"tcb": {"isvsvn": svn}, "tcbDate": "2026-01-14T00:00:00Z", "tcbStatus": status}
        for svn, status in ((7, "UpToDate"), (8, "Revoked"))
    ]
    papers = collateral(qe_identity=DocumentRecipe(changes={"tcbLevels": rows}))
    assert refused(papers=papers) == "collateral.qe_identity.levels"


def test_a_revoked_quoting_enclave() -> None:
    assert refused(papers=collateral(qe_status="Revoked")) == "tcb.revoked"


def test_an_outdated_quoting_enclave_makes_the_platform_outdated() -> None:
    assert verify(papers=collateral(qe_status="OutOfDate")).status is TcbStatus.OUT_OF_DATE
    outdated = QuoteRecipe(quoting_enclave=QuotingEnclave(isv_svn=QuotingEnclave().isv_svn - 1))
    verdict = verify(quote(outdated))
    assert verdict.status is TcbStatus.OUT_OF_DATE
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        ({"mr_signer": b"\0" * 32}, ("quote.qe_identity",)),
        ({"isv_prod_id": 2}, ("quote.qe_identity",)),
        ({"misc_select": 1}, ("quote.qe_identity",)),
        ({"isv_svn": 1}, ("tcb.qe_level", "tcb.level")),
        ({"attributes": Attributes(Attributes.INIT | Attributes.MODE64BIT, 3)}, ("quote.qe_identity",)),
        (
            {"attributes": Attributes(Attributes.INIT | Attributes.DEBUG | Attributes.PROVISION_KEY, 3)},
            ("quote.qe_identity", "quote.debug"),
        ),
    ],
)
def test_another_enclave_in_the_quoting_enclaves_place(changes: dict[str, Any], checks: tuple[str, ...]) -> None:
    impostor = replace(QuotingEnclave(), **changes)
    assert refused(quote(QuoteRecipe(quoting_enclave=impostor))) in checks


def test_a_debug_quoting_enclave_is_refused_even_if_its_identity_does_not_mind() -> None:
    debug = QuotingEnclave(attributes=Attributes(QuotingEnclave().attributes.flags | Attributes.DEBUG, 3))
    lax = DocumentRecipe(changes={"attributes": "00" * 16, "attributesMask": "00" * 16})
    papers = collateral(qe_identity=lax)
    assert verify(papers=papers).status is TcbStatus.UP_TO_DATE
    assert refused(quote(QuoteRecipe(quoting_enclave=debug)), papers) in ("quote.qe_identity", "quote.debug")


# Role confusion: only the TCB signer signs documents. dcap-qvl alone accepts all four shapes, for both documents.


def pck_as_signer() -> DocumentRecipe:
    """The platform's own PCK key: an extracted one would judge itself up to date."""
    chain = (VENDOR.pck(), VENDOR.pck_ca(), VENDOR.root)
    return DocumentRecipe(signer=VENDOR.pck(), chain=chain)


def pck_with_the_signers_root_only() -> DocumentRecipe:
    return DocumentRecipe(signer=VENDOR.pck(), chain=(VENDOR.pck(), VENDOR.root))


def leaf_of_the_pck_ca() -> DocumentRecipe:
    """Named as the TCB signer, but under the wrong authority."""
    signer = leaf("Intel SGX TCB Signing", VENDOR.pck_ca())
    return DocumentRecipe(signer=signer, chain=(signer, VENDOR.pck_ca(), VENDOR.root))


def other_leaf_of_the_root() -> DocumentRecipe:
    signer = leaf("Intel SGX Something Else", VENDOR.root)
    return DocumentRecipe(signer=signer, chain=(signer, VENDOR.root))


def leaf(name: str, issuer: Party, *, validity: Validity | None = None) -> Party:
    return issue(
        name,
        VENDOR.key(f"leaf {name}"),
        issuer,
        validity=validity or VENDOR.validity(7),
        crl_url="https://simulated.invalid/x.der",
        path_length=None,
    )


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "shape", [pck_as_signer, pck_with_the_signers_root_only, leaf_of_the_pck_ca, other_leaf_of_the_root]
)
def test_role_confusion(document: str, shape: Callable[[], DocumentRecipe]) -> None:
    assert refused(papers=collateral(**{document: shape()})) == f"collateral.{document}.chain.shape"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "parties",
    [
        lambda: (VENDOR.root,),
        lambda: (VENDOR.root, VENDOR.tcb_signer),
        lambda: (VENDOR.tcb_signer,),
        lambda: (VENDOR.tcb_signer, VENDOR.pck_ca(), VENDOR.root),
        lambda: (VENDOR.tcb_signer, VENDOR.root, VENDOR.root),
        lambda: (VENDOR.pck_ca(), VENDOR.root),
        lambda: (),
    ],
    ids=["root alone", "reversed", "no root", "one too many", "root twice", "an authority as signer", "empty"],
)
def test_signer_chains_of_another_shape(document: str, parties: Callable[[], tuple[Party, ...]]) -> None:
    check = refused(papers=collateral(**{document: DocumentRecipe(chain=parties())}))
    assert check in (f"collateral.{document}.chain.shape", f"collateral.{document}.chain.format")


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_root_that_signs_documents_itself(document: str) -> None:
    recipe = DocumentRecipe(signer=VENDOR.root, chain=(VENDOR.root, VENDOR.root))
    assert refused(papers=collateral(**{document: recipe})) == f"collateral.{document}.chain.shape"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_signer_that_the_root_never_signed(document: str) -> None:
    """Right names throughout, and the right root at the end: only the signature tells."""
    impostor = leaf("Intel SGX TCB Signing", Party(VENDOR.root.certificate, STRANGER.root.key))
    check = refused(papers=collateral(**{document: DocumentRecipe(signer=impostor)}))
    assert check == f"collateral.{document}.chain.signature"


# Signatures of documents.


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "forge",
    [
        lambda text, signature: (text, bytes(64)),
        lambda text, signature: (text, signature[:32] + bytes(32)),
        lambda text, signature: (text, sign_raw(STRANGER.tcb_signer.key, text.encode())),
        lambda text, signature: (text, sign_raw(VENDOR.pck().key, text.encode())),
        lambda text, signature: (json.dumps(json.loads(text)), signature),
        lambda text, signature: (text + " ", signature),
        lambda text, signature: (text.replace("UpToDate", "OutOfDate"), signature),
    ],
    ids=["zero", "s zero", "another signer", "the PCK key", "re-serialised", "a blank more", "changed"],
)
def test_forged_documents(document: str, forge: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    papers = collateral()
    text, signature = forge(getattr(papers, document), getattr(papers, f"{document}_signature"))
    forged = replace(papers, **{document: text, f"{document}_signature": signature})
    assert refused(papers=forged) == f"collateral.{document}.signature"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_signatures_of_another_length(document: str, size: int) -> None:
    papers = collateral()
    signature = (getattr(papers, f"{document}_signature") * 2)[:size]
    check = refused(papers=replace(papers, **{f"{document}_signature": signature}))
    assert check == f"collateral.{document}.signature"


def test_documents_in_each_others_place() -> None:
    papers = collateral()
    swapped = replace(
        papers,
        tcb_info=papers.qe_identity,
        tcb_info_signature=papers.qe_identity_signature,
        qe_identity=papers.tcb_info,
        qe_identity_signature=papers.tcb_info_signature,
    )
    assert refused(papers=swapped) == "collateral.tcb_info.id"


def test_a_member_that_is_there_twice() -> None:
    """Which of the two counts differs between parsers."""
    papers = collateral()
    text = papers.tcb_info[:-1] + ',"tcbType":0}'
    twice = replace(papers, tcb_info=text, tcb_info_signature=sign_raw(VENDOR.tcb_signer.key, text.encode()))
    assert refused(papers=twice) == "collateral.tcb_info.format"


# Dates, in both directions, of everything that has them.


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    ("times", "check"),
    [
        ({"issued": -40 * DAY, "next_update": 0}, "expired"),
        ({"issued": -40 * DAY, "next_update": -1}, "expired"),
        ({"issued": 1}, "not_yet_valid"),
        ({"issued": 5 * YEAR, "next_update": 6 * YEAR}, "not_yet_valid"),
        ({"issued": 0, "next_update": -DAY}, "format"),
    ],
)
def test_documents_out_of_their_time(document: str, times: dict[str, int], check: str) -> None:
    papers = collateral(**{document: DocumentRecipe(**times)})
    assert refused(papers=papers) == f"collateral.{document}.{check}"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_documents_in_their_first_and_last_second(document: str) -> None:
    assert verify(papers=collateral(**{document: DocumentRecipe(issued=0, next_update=1)})).valid_until == NOW + 1


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
def test_revocation_lists_out_of_their_time(crl: str, name: str, times: dict[str, int], check: str) -> None:
    assert refused(papers=collateral(**{crl: CrlRecipe(**times)})) == f"collateral.{name}.{check}"


def pck_chain(**changes: Any) -> QuoteRecipe:
    """A PCK certificate of one's own making, in a chain that is sound otherwise."""
    arguments = {"issuer": VENDOR.pck_ca(), "key": VENDOR.key("pck platform")} | changes
    pck = VENDOR.issue_pck(VENDOR.machine(), **arguments)
    return QuoteRecipe(pck_chain=(pck, VENDOR.pck_ca(), VENDOR.root))


EXPIRED = Validity(NOW - YEAR, NOW)
FUTURE = Validity(NOW + 1, NOW + YEAR)


@pytest.mark.parametrize(("validity", "check"), [(EXPIRED, "expired"), (FUTURE, "not_yet_valid")])
def test_a_pck_certificate_out_of_its_time(validity: Validity, check: str) -> None:
    assert refused(quote(pck_chain(validity=validity))) == f"pck_chain.{check}"


@pytest.mark.parametrize(("validity", "check"), [(EXPIRED, "expired"), (FUTURE, "not_yet_valid")])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_tcb_signer_out_of_its_time(document: str, validity: Validity, check: str) -> None:
    signer = leaf("Intel SGX TCB Signing", VENDOR.root, validity=validity)
    papers = collateral(**{document: DocumentRecipe(signer=signer)})
    assert refused(papers=papers) == f"collateral.{document}.chain.{check}"


@pytest.mark.parametrize("at", [NOW - 2 * YEAR, NOW + 40 * YEAR])
def test_everything_out_of_its_time(at: int) -> None:
    assert refused(at=at).rpartition(".")[2] in ("expired", "not_yet_valid")


# Revocation: each of the four certificates that can be revoked.


@pytest.mark.parametrize(
    ("recipe", "check"),
    [
        ({"pck_crl": CrlRecipe(revoked=[VENDOR.pck().serial])}, {"pck_chain.revoked"}),
        ({"pck_crl": CrlRecipe(revoked=[1, 2, VENDOR.pck().serial, 3])}, {"pck_chain.revoked"}),
        (
            {"root_crl": CrlRecipe(revoked=[VENDOR.pck_ca().serial])},
            {"pck_chain.revoked", "collateral.pck_crl.chain.revoked"},
        ),
        (
            {"root_crl": CrlRecipe(revoked=[VENDOR.tcb_signer.serial])},
            {"collateral.tcb_info.chain.revoked", "collateral.qe_identity.chain.revoked"},
        ),
        (
            {"root_crl": CrlRecipe(revoked=[VENDOR.root.serial])},
            {"pck_chain.revoked", "collateral.pck_crl.chain.revoked", "collateral.tcb_info.chain.revoked"},
        ),
    ],
    ids=["PCK", "PCK among others", "PCK CA", "TCB signer", "root"],
)
def test_revoked(recipe: dict[str, CrlRecipe], check: set[str]) -> None:
    assert refused(papers=collateral(**recipe)) in check


def test_a_revoked_signer_of_one_document_only() -> None:
    other = leaf("Intel SGX TCB Signing", VENDOR.root)
    for document in ("tcb_info", "qe_identity"):
        papers = collateral(**{document: DocumentRecipe(signer=other)}, root_crl=CrlRecipe(revoked=[other.serial]))
        assert refused(papers=papers) == f"collateral.{document}.chain.revoked"


def test_revoked_strangers_do_no_harm() -> None:
    harmless = {
        "root_crl": CrlRecipe(revoked=[VENDOR.pck().serial, VENDOR.pck_ca("processor").serial]),
        "pck_crl": CrlRecipe(revoked=[VENDOR.pck_ca().serial, VENDOR.pck("processor").serial]),
    }
    assert verify(papers=collateral(**harmless)).status is TcbStatus.UP_TO_DATE


# Revocation lists that are none, or another's.


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl"])
@pytest.mark.parametrize("forge", [lambda crl: b"", lambda crl: crl[:-1], lambda crl: crl + b"\0", bytes.hex])
def test_revocation_lists_that_are_none(name: str, forge: Callable[[bytes], bytes | str]) -> None:
    papers = collateral()
    made = forge(getattr(papers, name))
    data = made.encode() if isinstance(made, str) else made
    assert refused(papers=replace(papers, **{name: data})).startswith(f"collateral.{name}.")


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl"])
def test_every_bit_of_a_revocation_list_counts(name: str) -> None:
    papers = collateral(pck_crl=CrlRecipe(revoked=[5]), root_crl=CrlRecipe(revoked=[5]))
    crl = getattr(papers, name)
    for at in range(0, len(crl), 3):
        changed = bytearray(crl)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(EvidenceError):
            verify(papers=replace(papers, **{name: bytes(changed)}))


@pytest.mark.parametrize(("crl", "name"), [("root_crl", "root_ca_crl"), ("pck_crl", "pck_crl")])
def test_forged_revocation_lists(crl: str, name: str) -> None:
    """Of the right name, empty as the forger likes it, signed by another key."""
    rightful = VENDOR.root if crl == "root_crl" else VENDOR.pck_ca()
    forged = CrlRecipe(issuer=Party(rightful.certificate, STRANGER.root.key))
    assert refused(papers=collateral(**{crl: forged})) == f"collateral.{name}.signature"


def test_revocation_lists_of_the_wrong_authority() -> None:
    assert refused(papers=collateral(ca="processor")) in ("collateral.pck_crl.issuer", "collateral.pck_crl.chain.shape")
    wrong = CrlRecipe(issuer=VENDOR.pck_ca("processor"))
    assert refused(papers=collateral(pck_crl=wrong)) == "collateral.pck_crl.issuer"
    assert refused(papers=collateral(root_crl=CrlRecipe(issuer=VENDOR.pck_ca()))) == "collateral.root_ca_crl.issuer"
    assert refused(papers=collateral(pck_crl=CrlRecipe(issuer=VENDOR.root))) == "collateral.pck_crl.issuer"


def test_revocation_lists_in_each_others_place() -> None:
    papers = collateral()
    swapped = replace(papers, root_ca_crl=papers.pck_crl, pck_crl=papers.root_ca_crl)
    assert refused(papers=swapped) == "collateral.root_ca_crl.issuer"


def test_a_revocation_list_signed_by_a_pck_key() -> None:
    """A leaf may not revoke, nor un-revoke."""
    forged = CrlRecipe(issuer=Party(VENDOR.pck_ca().certificate, VENDOR.pck().key))
    assert refused(papers=collateral(pck_crl=forged)) == "collateral.pck_crl.signature"


# The quote's own chain.


def chain(*parties: Party) -> bytes:
    return quote(QuoteRecipe(pck_chain=parties))


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(VENDOR.pck()),
        lambda: chain(VENDOR.pck(), VENDOR.pck_ca()),
        lambda: chain(VENDOR.pck(), VENDOR.root),
        lambda: chain(VENDOR.root, VENDOR.pck_ca(), VENDOR.pck()),
        lambda: chain(VENDOR.pck(), VENDOR.pck_ca(), VENDOR.root, VENDOR.root),
        lambda: chain(VENDOR.pck(), VENDOR.pck_ca(), VENDOR.pck_ca(), VENDOR.root),
        lambda: chain(VENDOR.pck(), VENDOR.pck_ca("processor"), VENDOR.root),
        lambda: chain(VENDOR.pck_ca(), VENDOR.pck_ca(), VENDOR.root),
        lambda: chain(VENDOR.tcb_signer, VENDOR.pck_ca(), VENDOR.root),
        # dcap-qvl alone: accepted, both.
        lambda: chain(VENDOR.issue_pck(VENDOR.machine(), issuer=VENDOR.root, key=VENDOR.key("direct")), VENDOR.root),
        lambda: quote(pck_chain(common_name="Some Other Certificate")),
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
        "another name",
    ],
)
def test_pck_chains_of_another_shape(make: Callable[[], bytes]) -> None:
    assert refused(make()) in ("pck_chain.shape", "pck_chain.extension")


def test_a_pck_issued_by_a_pck() -> None:
    """A leaf as authority, with the names that an authority has."""
    below = VENDOR.issue_pck(VENDOR.machine(), issuer=VENDOR.pck(), key=VENDOR.key("below"))
    assert refused(chain(below, VENDOR.pck(), VENDOR.pck_ca(), VENDOR.root)) == "pck_chain.shape"
    false_ca = leaf("Intel SGX PCK Platform CA", VENDOR.root)
    below = VENDOR.issue_pck(VENDOR.machine(), issuer=false_ca, key=VENDOR.key("below"))
    check = refused(chain(below, false_ca, VENDOR.root))
    assert check in ("pck_chain.shape", "chain.verification", "collateral.pck_crl.issuer")


def test_a_pck_that_its_authority_never_signed() -> None:
    impostor = VENDOR.issue_pck(
        VENDOR.machine(), issuer=Party(VENDOR.pck_ca().certificate, STRANGER.root.key), key=VENDOR.key("mine")
    )
    assert refused(chain(impostor, VENDOR.pck_ca(), VENDOR.root)) == "pck_chain.signature"


def test_a_self_signed_pck() -> None:
    alone = VENDOR.issue_pck(VENDOR.machine(), issuer=VENDOR.pck(), key=VENDOR.pck().key)
    assert refused(chain(alone, VENDOR.pck_ca(), VENDOR.root)) == "pck_chain.shape"


def test_a_leaf_without_the_sgx_extension() -> None:
    assert refused(chain(leaf("Intel SGX PCK Certificate", VENDOR.pck_ca()), VENDOR.pck_ca(), VENDOR.root)) in (
        "pck_chain.extension",
    )


def test_a_pck_of_another_platform() -> None:
    other = replace(VENDOR.machine(), fmspc=b"SIM\x00\x00\x02")
    pck = VENDOR.issue_pck(other, issuer=VENDOR.pck_ca(), key=VENDOR.key("other"))
    assert refused(chain(pck, VENDOR.pck_ca(), VENDOR.root)) == "collateral.tcb_info.fmspc"
    other = replace(VENDOR.machine(), pce_id=b"\x00\x01")
    pck = VENDOR.issue_pck(other, issuer=VENDOR.pck_ca(), key=VENDOR.key("other"))
    assert refused(chain(pck, VENDOR.pck_ca(), VENDOR.root)) == "collateral.tcb_info.pce_id"


def test_the_level_is_the_pck_certificates_not_the_reports() -> None:
    """The report's CPUSVN is what the machine says of itself; the certificate is what the vendor says."""
    components = (6, *VENDOR.COMPONENTS[1:])
    older = replace(VENDOR.machine(), components=components, cpu_svn=bytes(components), pce_svn=12)
    pck = VENDOR.issue_pck(older, issuer=VENDOR.pck_ca(), key=VENDOR.key("older"))
    verdict = verify(quote(QuoteRecipe(pck_chain=(pck, VENDOR.pck_ca(), VENDOR.root)), cpu_svn=VENDOR.cpu_svn))
    assert verdict.status is TcbStatus.OUT_OF_DATE
    assert verdict.advisory_ids == ("SIMULATED-SA-00001",)


def test_a_pck_whose_components_contradict_its_cpu_svn() -> None:
    """One of the two would be what counts, and which one differs between verifiers."""
    better = replace(VENDOR.machine(), components=(255,) * 16)
    pck = VENDOR.issue_pck(better, issuer=VENDOR.pck_ca(), key=VENDOR.key("better"))
    assert refused(chain(pck, VENDOR.pck_ca(), VENDOR.root)) == "pck_chain.extension"


# The quote itself.


def test_truncated_anywhere() -> None:
    data = quote()
    boundaries = {0, 1, 47, 48, 431, 432, 435, 436, KEY, QE_REPORT, QE_SIGNATURE, AUTH_SIZE, CERT_TYPE, CERT_SIZE}
    for size in sorted(boundaries | {len(data) - 1, len(data) // 2, CERT_SIZE + 4}):
        with pytest.raises(EvidenceError):
            verify_quote(data[:size], collateral(), at=NOW, root=ROOT)


@pytest.mark.parametrize("more", [b"\0", b"\0" * 64, b"x", quote()])
def test_trailing_bytes(more: bytes) -> None:
    """dcap-qvl alone: accepted."""
    assert refused(quote() + more) in ("quote.trailing_bytes", "quote.size")


def patched(at: int, value: bytes) -> bytes:
    data = bytearray(quote())
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("at", "value", "checks"),
    [
        (0, struct.pack("<H", 2), ("quote.version",)),
        (0, struct.pack("<H", 4), None),
        (0, struct.pack("<H", 5), None),
        (0, struct.pack("<H", 6), ("quote.version",)),
        (2, struct.pack("<H", 3), ("quote.attestation_key_type",)),
        (4, struct.pack("<I", 0x81), ("quote.tee_type",)),
        (4, struct.pack("<I", 1), ("quote.tee_type",)),
        (12, bytes(16), ("quote.qe_vendor",)),
        (8, b"\xff\xff", ("quote.signature",)),
        (28, b"\xff" * 20, ("quote.signature",)),
        (BODY + 64, b"\x33" * 32, ("quote.signature",)),
        (BODY + 320, b"\xff" * 64, ("quote.signature",)),
        (SIGNATURE_SIZE, struct.pack("<I", 0xFFFFFFFF), ("quote.truncated",)),
        (SIGNATURE_SIZE, struct.pack("<I", 0), None),
        (SIGNATURE, bytes(64), None),
        (SIGNATURE, bytes(32), None),
        (KEY, bytes(64), None),
        (KEY, b"\xff" * 64, None),
        (KEY + 63, bytes([quote()[KEY + 63] ^ 1]), None),
        (QE_REPORT, b"\xff", ("quote.qe_report_signature",)),
        (QE_SIGNATURE, bytes(64), None),
        (AUTH_SIZE, struct.pack("<H", 0xFFFF), ("quote.truncated", "quote.signature_data")),
        (AUTH_SIZE + 2, b"\xff", ("quote.qe_report_data",)),
        (CERT_SIZE, struct.pack("<I", 0xFFFFFFFF), ("quote.truncated", "quote.signature_data")),
    ],
)
def test_changed_fields(at: int, value: bytes, checks: tuple[str, ...] | None) -> None:
    check = refused(patched(at, value))
    assert checks is None or check in checks
    assert check.startswith("quote.")


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 7, 8, 0xFFFF])
def test_other_certification_data(kind: int) -> None:
    assert refused(patched(CERT_TYPE, struct.pack("<H", kind))) == "quote.certification_type"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_authentication_data_of_another_length(size: int) -> None:
    """Intel's library accepts any length; dcap-qvl and this layer want what Intel's quoting enclave makes."""
    assert refused(quote(QuoteRecipe(qe_auth_data=bytes(size)))) == "quote.qe_auth_data"


def test_a_quoting_enclave_that_vouches_for_another_key() -> None:
    assert refused(quote(QuoteRecipe(qe_report_data=bytes(64)))) == "quote.qe_report_data"
    # The second half is zero in practice; Intel's library does not look at it either, the first half binds the key.
    for at in (0, 31):
        bound = bytearray(quote()[QE_REPORT + 320 : QE_REPORT + 384])
        bound[at] ^= 1
        assert refused(quote(QuoteRecipe(qe_report_data=bytes(bound)))) == "quote.qe_report_data"


def test_debug_enclaves() -> None:
    flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
    assert refused(quote(attributes=Attributes(flags, 3))) == "quote.debug"


def test_no_changed_byte_changes_what_is_said() -> None:
    """Not every changed byte is refused (PEM has bytes that mean nothing), but none makes another verdict."""
    data, papers, sound = quote(), collateral(), verify()
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        try:
            verdict = verify(bytes(changed), papers)
        except EvidenceError:
            continue
        assert verdict == sound
        assert at > CERT_SIZE
