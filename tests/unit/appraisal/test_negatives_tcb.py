"""TCB info that a verifier of DCAP must not accept, and platforms below it: each differs in one respect.

The floor for ``tcbEvaluationDataNumber`` is the policy's, and tested with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.platform.simulated.certificates import sign_raw
from ensconce.platform.simulated.collateral import ABSENT, DocumentRecipe, tcb_level

DAY = 86_400
YEAR = 365 * DAY
FIRST_MATCH = "the first match decides, in whatever order it puts them"
STILL_GOOD = "what ends at a second is good in it"
REWRITTEN = "it checks the signature over its own writing of what it read"
DOCUMENTS = ("tcb_info", "qe_identity")


def case(check: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, **more}


def with_svn(w: Any, svn: object) -> Any:
    """The own level, with something else where the first component is."""
    row = w.level()
    row["tcb"]["sgxtcbcomponents"][0]["svn"] = svn
    return w.levels(row)


def of_count(w: Any, count: int) -> Any:
    """A level that everything reaches, with another number of SGX components."""
    return w.levels(tcb_level([0] * count, 0, "UpToDate", tdx_components=[0] * 16 if w.tdx else None))


def resigned(w: Any, document: str, change: Callable[[str], str]) -> Any:
    """A document with other text that its signer did sign."""
    text = change(getattr(w.sound_papers, document))
    signature = sign_raw(w.vendor.tcb_signer.key, text.encode())
    return replace(w.sound_papers, **{document: text, f"{document}_signature": signature})


def tampered(w: Any, document: str, text: Callable[[str], str] = str, signature: Any = bytes) -> Any:
    """A document, or its signature, after signing."""
    was = w.sound_papers
    made = {document: text(getattr(was, document))}
    made[f"{document}_signature"] = signature(getattr(was, f"{document}_signature"))
    return replace(was, **made)


def info(check: str, *, alone: bool | tuple[str, ...] = False, intel: str = "", **changes: object) -> dict[str, Any]:
    return case(f"collateral.tcb_info.{check}", lambda w: w.tcb_info(**changes), alone=alone, intel=intel)


CASES = {
    "TCB: Revoked": case("tcb.revoked", lambda w: w.papers(tcb_status="Revoked")),
    "TCB: Revoked, one level down": case("tcb.revoked", lambda w: w.levels(w.level(c0=1), w.level("Revoked", c0=-1))),
    **{
        f"TCB: unknown status {status!r}": case(
            "collateral.tcb_info.levels", lambda w, status=status: w.papers(tcb_status=status)
        )
        for status in ("uptodate", "", "Fine", "UpToDate ", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded")
    },
    "TCB: unknown status of a level that is not its own": case(
        "collateral.tcb_info.levels", lambda w: w.levels(w.level(), w.level("Fine", c0=-1))
    ),
    "TCB: no status": case("collateral.tcb_info.levels", lambda w: w.levels({**w.level(), "tcbStatus": None})),
    # Components 4 and 5 are at 255 already.
    **{
        f"TCB: below all levels by component {number}": case(
            "tcb.level", lambda w, number=number: w.levels(w.level(**{f"c{number}": 1}))
        )
        for number in (0, 1, 2, 3, 6, 7, 15)
    },
    "TCB: below all levels by PCESVN": case("tcb.level", lambda w: w.levels(w.level(pce_svn=1))),
    "TCB: levels shuffled": case(
        "collateral.tcb_info.levels",
        lambda w: w.levels(w.level("OutOfDate", c0=-1), w.level("UpToDate")),
        alone=True,
        intel=FIRST_MATCH,
    ),
    "TCB: a lower level hides that the own is revoked": case(
        "collateral.tcb_info.levels", lambda w: w.levels(w.level("UpToDate", c0=-1), w.level("Revoked"))
    ),
    "TCB: the same level twice": case(
        "collateral.tcb_info.levels",
        lambda w: w.levels(w.level("UpToDate"), w.level("Revoked")),
        alone=True,
    ),
    **{
        f"TCB: {count} components": case("collateral.tcb_info.levels", lambda w, count=count: of_count(w, count))
        for count in (0, 15, 17)
    },
    **{
        f"TCB: a component of {svn!r}": case(
            "collateral.tcb_info.format",
            lambda w, svn=svn: with_svn(w, svn),
            intel="it cuts it to a byte" if svn == 256 else "",
        )
        for svn in (-1, 256, "7", 7.0, True, None)
    },
    "TCB: no levels": info("levels", tcbLevels=[]),
    "TCB: levels that are none": info("levels", tcbLevels="none"),
    "TCB: levels left out": info("levels", tcbLevels=ABSENT),
    "TCB: a level that is no object": info("format", tcbLevels=["UpToDate"]),
    "TCB: a level without date": case(
        "collateral.tcb_info.format",
        lambda w: w.levels({**w.level(), "tcbDate": "yesterday"}),
        # It does refuse to make claims of it, which is how it is asked here.
        alone=("SGX v3",),
    ),
    "TCB: advisories that are none": case(
        "collateral.tcb_info.format", lambda w: w.levels({**w.level(), "advisoryIDs": "INTEL-SA-00001"})
    ),
    "TCB: FMSPC of another": info("fmspc", fmspc="00606A000000"),
    "TCB: FMSPC left out": info("format", fmspc=ABSENT),
    "TCB: FMSPC too short": info("format", fmspc="53494D0000"),
    "TCB: PCEID of another": info("pce_id", pceId="0001", alone=True),
    "TCB: PCEID left out": info("format", pceId=ABSENT),
    "TCB: version 2": info("version", version=2, alone=("SGX v3",)),
    "TCB: version 4": info("version", version=4, alone=True),
    "TCB: version of another type": info("version", version="3"),
    "TCB: version left out": info("version", version=ABSENT),
    "TCB: id of another": case("collateral.tcb_info.id", lambda w: w.tcb_info(id="SGX" if w.tdx else "TDX")),
    "TCB: id left out": info("id", id=ABSENT),
    "TCB: tcbType 1": info("tcb_type", tcbType=1, alone=True, intel="it takes any type"),
    "TCB: tcbType left out": info("tcb_type", tcbType=ABSENT),
    "TCB: evaluation number left out": info("format", tcbEvaluationDataNumber=ABSENT),
    "TCB: evaluation number negative": info("format", tcbEvaluationDataNumber=-1),
    "TCB: issue date left out": info("format", issueDate=ABSENT),
    "TCB: issue date that is none": info("format", issueDate="yesterday"),
    "TCB: next update that is a day": info("format", nextUpdate="2027-01-01"),
    "TCB: for the other kind of quote": case(
        "collateral.tcb_info.id", lambda w: w.papers(tee="sgx" if w.tdx else "tdx")
    ),
    "documents: in each other's place": case(
        "collateral.tcb_info.id",
        lambda w: replace(
            w.sound_papers,
            tcb_info=w.sound_papers.qe_identity,
            tcb_info_signature=w.sound_papers.qe_identity_signature,
            qe_identity=w.sound_papers.tcb_info,
            qe_identity_signature=w.sound_papers.tcb_info_signature,
        ),
    ),
}

for _document in DOCUMENTS:
    _check = f"collateral.{_document}"
    _rows: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "signature of 0 bytes": ("signature", {"signature": lambda s: b""}, {}),
        "signature too short": ("signature", {"signature": lambda s: s[:63]}, {}),
        "signature too long": ("signature", {"signature": lambda s: s + b"\0"}, {}),
        "signature twice": ("signature", {"signature": lambda s: s * 2}, {}),
        "signature zero": ("signature", {"signature": lambda s: bytes(64)}, {}),
        "signature with s zero": ("signature", {"signature": lambda s: s[:32] + bytes(32)}, {}),
        "re-serialised": ("signature", {"text": lambda t: json.dumps(json.loads(t))}, {"intel": REWRITTEN}),
        "a blank more": ("signature", {"text": lambda t: t + " "}, {"intel": REWRITTEN}),
        "changed": ("signature", {"text": lambda t: t.replace("UpToDate", "OutOfDate")}, {}),
        "no JSON": ("format", {"text": lambda t: "{"}, {}),
        "empty": ("format", {"text": lambda t: ""}, {}),
        "a list": ("format", {"text": lambda t: "[]"}, {}),
        "nested too deeply": ("format", {"text": lambda t: "[" * 100_000}, {}),
    }
    CASES |= {
        f"{_document}: {what}": case(
            f"{_check}.{check}", lambda w, d=_document, change=change: tampered(w, d, **change), **more
        )
        for what, (check, change, more) in _rows.items()
    }
    CASES |= {
        f"{_document}: signed by {whose}": case(
            f"{_check}.signature",
            lambda w, d=_document, key=key: replace(
                w.sound_papers, **{f"{d}_signature": sign_raw(key(w), getattr(w.sound_papers, d).encode())}
            ),
        )
        for whose, key in {
            "another vendor": lambda w: w.stranger.tcb_signer.key,
            "a PCK": lambda w: w.vendor.pck().key,
            "the root": lambda w: w.vendor.root.key,
        }.items()
    }
    CASES |= {
        f"{_document}: {what}": case(
            f"{_check}.{check}", lambda w, d=_document, times=times: w.papers(**{d: DocumentRecipe(**times)}), **more
        )
        for what, check, times, more in (
            (
                "expired in this second",
                "expired",
                {"issued": -40 * DAY, "next_update": 0},
                {"alone": True, "intel": STILL_GOOD},
            ),
            ("expired a second ago", "expired", {"issued": -40 * DAY, "next_update": -1}, {}),
            ("from the next second", "not_yet_valid", {"issued": 1}, {"intel": "it accepts what is from the future"}),
            (
                "from years ahead",
                "not_yet_valid",
                {"issued": 5 * YEAR, "next_update": 6 * YEAR},
                {"intel": "it accepts what is from the future"},
            ),
            ("expires before it is issued", "format", {"issued": 0, "next_update": -DAY}, {}),
        )
    }
    CASES[f"{_document}: a member twice"] = case(
        f"{_check}.format", lambda w, d=_document: resigned(w, d, lambda t: t[:-1] + ',"version":3}'), intel=REWRITTEN
    )


def test_negative(negative: Callable[[], None]) -> None:
    negative()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_in_their_first_and_last_second(world: Any, document: str) -> None:
    papers = world.papers(**{document: DocumentRecipe(issued=0, next_update=1)})
    verdict = world.verify(papers=papers)
    assert verdict.valid_until == verdict.at + 1
