"""TCB info and QE identity that a verifier of DCAP quotes must not accept, and quoting enclaves of another identity.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.evidence.report import Attributes
from ensconce.platform.simulated.certificates import sign_raw
from ensconce.platform.simulated.collateral import ABSENT, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, QuotingEnclave

NOW = 1_790_000_000
DAY = 86_400
YEAR = 365 * 86_400

Verify = Callable[..., Verdict]
Refused = Callable[..., str]
Papers = Callable[..., Collateral]
Quoting = Callable[..., bytes]


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
def test_tcb_info_of_another_kind(
    refused: Refused, collateral: Papers, changes: Mapping[str, object], check: str
) -> None:
    papers = collateral(tcb_info=DocumentRecipe(changes=changes))
    assert refused(papers=papers) == f"collateral.tcb_info.{check}"


# QE identity, and the quoting enclaves that do not have it.


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
        ({"attributes": "15000000000000000000000000000000"}, "collateral.qe_identity.format"),  # dcap-qvl: accepted
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
def test_qe_identity_of_another_kind(
    verify: Verify,
    refused: Refused,
    collateral: Papers,
    changes: Mapping[str, object],
    checks: str | tuple[str, ...] | None,
) -> None:
    papers = collateral(qe_identity=DocumentRecipe(changes=changes))
    if checks is None:
        assert verify(papers=papers).status is TcbStatus.UP_TO_DATE
    else:
        assert refused(papers=papers) in ((checks,) if isinstance(checks, str) else checks)


def test_qe_levels_out_of_order_are_refused(refused: Refused, collateral: Papers) -> None:
    """dcap-qvl and Intel's library alone: the first match decides."""
    rows = [
        {"tcb": {"isvsvn": svn}, "tcbDate": "2026-01-14T00:00:00Z", "tcbStatus": status}
        for svn, status in ((7, "UpToDate"), (8, "Revoked"))
    ]
    papers = collateral(qe_identity=DocumentRecipe(changes={"tcbLevels": rows}))
    assert refused(papers=papers) == "collateral.qe_identity.levels"


def test_a_revoked_quoting_enclave(refused: Refused, collateral: Papers) -> None:
    assert refused(papers=collateral(qe_status="Revoked")) == "tcb.revoked"


def test_an_outdated_quoting_enclave_makes_the_platform_outdated(
    verify: Verify, quote: Quoting, collateral: Papers
) -> None:
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
def test_another_enclave_in_the_quoting_enclaves_place(
    refused: Refused, quote: Quoting, changes: dict[str, Any], checks: tuple[str, ...]
) -> None:
    impostor = replace(QuotingEnclave(), **changes)
    assert refused(quote(QuoteRecipe(quoting_enclave=impostor))) in checks


def test_a_debug_quoting_enclave_is_refused_even_if_its_identity_does_not_mind(
    verify: Verify, refused: Refused, quote: Quoting, collateral: Papers
) -> None:
    debug = QuotingEnclave(attributes=Attributes(QuotingEnclave().attributes.flags | Attributes.DEBUG, 3))
    lax = DocumentRecipe(changes={"attributes": "00" * 16, "attributesMask": "00" * 16})
    papers = collateral(qe_identity=lax)
    assert verify(papers=papers).status is TcbStatus.UP_TO_DATE
    assert refused(quote(QuoteRecipe(quoting_enclave=debug)), papers) in ("quote.qe_identity", "quote.debug")


# The bytes as they were signed.


def test_documents_in_each_others_place(refused: Refused, collateral: Papers) -> None:
    papers = collateral()
    swapped = replace(
        papers,
        tcb_info=papers.qe_identity,
        tcb_info_signature=papers.qe_identity_signature,
        qe_identity=papers.tcb_info,
        qe_identity_signature=papers.tcb_info_signature,
    )
    assert refused(papers=swapped) == "collateral.tcb_info.id"


def test_a_member_that_is_there_twice(refused: Refused, collateral: Papers, vendor: SimulatedVendor) -> None:
    """Which of the two counts differs between parsers."""
    papers = collateral()
    text = papers.tcb_info[:-1] + ',"tcbType":0}'
    twice = replace(papers, tcb_info=text, tcb_info_signature=sign_raw(vendor.tcb_signer.key, text.encode()))
    assert refused(papers=twice) == "collateral.tcb_info.format"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "forge",
    [
        lambda text, signature: (text, bytes(64)),
        lambda text, signature: (text, signature[:32] + bytes(32)),
        lambda text, signature: (json.dumps(json.loads(text)), signature),
        lambda text, signature: (text + " ", signature),
        lambda text, signature: (text.replace("UpToDate", "OutOfDate"), signature),
    ],
    ids=["zero", "s zero", "re-serialised", "a blank more", "changed"],
)
def test_forged_documents(
    refused: Refused, collateral: Papers, document: str, forge: Callable[[str, bytes], tuple[str, bytes]]
) -> None:
    papers = collateral()
    text, signature = forge(getattr(papers, document), getattr(papers, f"{document}_signature"))
    forged = replace(papers, **{document: text, f"{document}_signature": signature})
    assert refused(papers=forged) == f"collateral.{document}.signature"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_documents_that_another_key_signed(
    refused: Refused, collateral: Papers, vendor: SimulatedVendor, stranger: SimulatedVendor, document: str
) -> None:
    papers = collateral()
    for key in (stranger.tcb_signer.key, vendor.pck().key):
        signature = sign_raw(key, getattr(papers, document).encode())
        forged = replace(papers, **{f"{document}_signature": signature})
        assert refused(papers=forged) == f"collateral.{document}.signature"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_signatures_of_another_length(refused: Refused, collateral: Papers, document: str, size: int) -> None:
    papers = collateral()
    signature = (getattr(papers, f"{document}_signature") * 2)[:size]
    check = refused(papers=replace(papers, **{f"{document}_signature": signature}))
    assert check == f"collateral.{document}.signature"


# Dates, in both directions.


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
def test_documents_out_of_their_time(
    refused: Refused, collateral: Papers, document: str, times: dict[str, int], check: str
) -> None:
    papers = collateral(**{document: DocumentRecipe(**times)})
    assert refused(papers=papers) == f"collateral.{document}.{check}"


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_documents_in_their_first_and_last_second(verify: Verify, collateral: Papers, document: str) -> None:
    assert verify(papers=collateral(**{document: DocumentRecipe(issued=0, next_update=1)})).valid_until == NOW + 1


@pytest.mark.parametrize("at", [NOW - 2 * YEAR, NOW + 40 * YEAR])
def test_everything_out_of_its_time(refused: Refused, at: int) -> None:
    assert refused(at=at).rpartition(".")[2] in ("expired", "not_yet_valid")
