"""Every row of index.json: real quotes with the collateral of their time, and what must come of them.

A row says what dcap-qvl and Intel's library said of it: a status with its advisories, or why it was refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import IntelRoot
from ensconce.appraisal.verdict import GenuineVerdict, TcbStatus
from ensconce.cli.main import main
from ensconce.errors import EvidenceError

ROWS = 166
# What a row's reason may be called here. Some quotes have more than one thing wrong with them, and the shape of their
# chain is looked at first.
_CHAIN = {"pck_chain.format", "pck_chain.shape", "pck_chain.root"}
CHECKS = {
    "Debug mode is enabled": {"quote.debug"} | _CHAIN,
    "Failed to verify certificate chain Caused by: UnknownIssuer": _CHAIN,
    "ISV enclave report signature is invalid": {"quote.signature"} | _CHAIN,
    "No matching TCB level found": {"tcb.level"},
    "SEPT_VE_DISABLE is not enabled": {"quote.td_attributes"},
    "Invalid MR service TD": {"quote.service_td"},
}


@pytest.fixture(scope="session")
def quotes(vectors: Path) -> Path:
    return vectors / "quotes"


@pytest.fixture(scope="session")
def rows(quotes: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((quotes / "index.json").read_text())
    assert len(rows) == ROWS
    return rows


@pytest.fixture(params=range(ROWS))
def row(request: pytest.FixtureRequest, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return rows[request.param]


def checks(row: dict[str, Any]) -> set[str]:
    return CHECKS[" ".join(row["expected_error"].split())]


def test_verification(quotes: Path, row: dict[str, Any]) -> None:
    data = (quotes / row["file"]).read_bytes()
    assert len(data) == row["bytes"]
    collateral = Collateral.from_json((quotes / row["collateral"]).read_bytes())
    if row["outcome"] == "reject":
        with pytest.raises(EvidenceError) as caught:
            verify_quote(data, collateral, at=row["valid_at"], root=IntelRoot())
        assert caught.value.check in checks(row)
        return
    verdict = verify_quote(data, collateral, at=row["valid_at"], root=IntelRoot())
    assert isinstance(verdict, GenuineVerdict)
    assert verdict.status is TcbStatus(row["expected_status"])
    assert list(verdict.advisory_ids) == row["advisory_ids"]
    assert verdict.tee == row["type"][:3].lower()
    assert verdict.debug == row["debug"]
    assert verdict.fmspc == row["fmspc"]
    assert verdict.tcb_evaluation_data_number == row["tcb_eval_data_number"]
    assert verdict.valid_until == row["valid_to"] + 1
    verify_quote(data, collateral, at=row["valid_to"], root=IntelRoot())
    with pytest.raises(EvidenceError) as caught:
        verify_quote(data, collateral, at=row["valid_to"] + 1, root=IntelRoot())
    assert caught.value.check.endswith(".expired")
    with pytest.raises(EvidenceError) as caught:
        verify_quote(data, collateral, at=row["valid_from"] - 2, root=IntelRoot())
    assert caught.value.check.endswith(".not_yet_valid")


def test_the_command(
    quotes: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, collateral = str(quotes / row["file"]), str(quotes / row["collateral"])
    arguments = ["quote", "verify", file, "--collateral", collateral, "--at", str(row["valid_at"]), "--json"]
    monkeypatch.setattr(sys, "argv", ["ensconce", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert captured.err == ""
    if row["outcome"] == "reject":
        assert left.value.code == 3
        assert value["error"]["check"] in checks(row)
        assert value["error"]["remedy"]
        return
    assert left.value.code == 0
    assert value["status"] == row["expected_status"]
    assert value["advisory_ids"] == row["advisory_ids"]
    assert value["debug"] is row["debug"]
    assert value["root"] == "intel"
    assert value["mr_signer"] == row["mr_signer"]
    assert (value["mr_enclave"] or value["mr_td"]) == row["measurement"]
    if value["tee"] == "sgx":
        assert value["attributes"] == row["attributes"]
        assert {type(value[name]) for name in ("isv_prod_id", "isv_svn")} == {int}
    else:
        assert value["td_attributes"] == row["attributes"]
        assert value["mr_enclave"] is None
        assert {len(value[f"rtmr{n}"]) for n in range(4)} == {96}
