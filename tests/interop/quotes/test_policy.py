"""Policies on real quotes: what names one exactly accepts it, and what names anything else does not."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.policy import (
    Advisories,
    AttributeMasks,
    Identity,
    Policy,
    StatusUntil,
    TrustDomain,
)
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_tcb import day_of
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.root import IntelRoot
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.cli.main import main
from ensconce.errors import RefusedError
from ensconce.evidence.report import SgxReport, TdReport


@pytest.fixture(scope="session")
def folder(vectors: Path) -> Path:
    return vectors / "quotes"


@pytest.fixture(scope="session")
def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in json.loads((folder / "index.json").read_text()) if row["outcome"] == "accept"]


@pytest.fixture(scope="session")
def verdicts(folder: Path, rows: list[dict[str, Any]]) -> list[Verdict]:
    """The verdict on every genuine quote, 50 of SGX and 71 of TDX."""

    def verified(row: dict[str, Any]) -> Verdict:
        collateral = Collateral.from_json((folder / row["collateral"]).read_bytes())
        return verify_quote((folder / row["file"]).read_bytes(), collateral, at=row["valid_at"], root=IntelRoot())

    return [verified(row) for row in rows]


def identity_of(verdict: Verdict) -> Identity:
    """Everything about the code in a verdict."""
    report = verdict.report
    if isinstance(report, SgxReport):
        return Identity(
            name="enclave",
            mr_enclave=report.mr_enclave,
            mr_signer=report.mr_signer,
            isv_prod_id=report.isv_prod_id,
            min_isv_svn=report.isv_svn,
            attributes=AttributeMasks(
                flags=Mask(2**64 - 1, report.attributes.flags), xfrm=Mask(2**64 - 1, report.attributes.xfrm)
            ),
        )
    registers = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config")
    attributes = int.from_bytes(report.td_attributes, "little")
    return Identity(
        name="guest",
        tdx=TrustDomain(
            **{name: getattr(report, name) for name in registers},
            td_attributes=Mask(2**64 - 1, attributes),
            xfam=Mask(2**64 - 1, int.from_bytes(report.xfam, "little")),
        ),
    )


def policy_for(verdict: Verdict, **changes: Any) -> Policy:
    """A policy that names exactly what a verdict says."""
    sound = verdict.status is TcbStatus.UP_TO_DATE
    exact: dict[str, Any] = {
        "roots": ("intel",),
        "tcb_statuses": (verdict.status if sound else StatusUntil(verdict.status, day_of(verdict.at)),),
        "identities": (identity_of(verdict),),
        "advisories": Advisories(accept=verdict.advisory_ids),
        "min_tcb_evaluation_data_number": min(verdict.tcb_evaluation_data_number, verdict.qe_evaluation_data_number),
        "platforms": (bytes.fromhex(verdict.ppid),),
    }
    return Policy(**(exact | changes))


def refusal(policy: Policy, verdict: Verdict) -> str:
    with pytest.raises(RefusedError) as caught:
        policy.judge(verdict)
    return caught.value.check


def test_what_names_it_exactly_accepts_it(verdicts: list[Verdict]) -> None:
    assert len(verdicts) == 121
    for verdict in verdicts:
        assert policy_for(verdict).judge(verdict).verdict is verdict


def test_anything_else_refuses_it(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        exact = policy_for(verdict)
        assert refusal(dataclasses.replace(exact, roots=("simulated:" + "0" * 64,)), verdict) == "policy.root"
        assert refusal(dataclasses.replace(exact, platforms=(b"\x99" * 16,)), verdict) == "policy.platforms"
        number = max(verdict.tcb_evaluation_data_number, verdict.qe_evaluation_data_number) + 1
        assert (
            refusal(dataclasses.replace(exact, min_tcb_evaluation_data_number=number), verdict)
            == "policy.min_tcb_evaluation_data_number"
        )
        if verdict.advisory_ids:
            assert refusal(dataclasses.replace(exact, advisories=Advisories(accept=())), verdict) == "policy.advisories"
            bad = Advisories(refuse=verdict.advisory_ids[-1:])
            assert refusal(dataclasses.replace(exact, advisories=bad), verdict) == "policy.advisories"
        if verdict.status is not TcbStatus.UP_TO_DATE:
            ended = StatusUntil(verdict.status, day_of(verdict.at) - datetime.timedelta(days=1))
            for statuses in ((TcbStatus.UP_TO_DATE,), (TcbStatus.UP_TO_DATE, ended)):
                assert refusal(dataclasses.replace(exact, tcb_statuses=statuses), verdict) == "policy.tcb_status"


def test_each_field_of_an_identity_is_held_to_it(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        identity = identity_of(verdict)
        if identity.tdx is not None:
            changed = [
                (name, dataclasses.replace(identity, tdx=dataclasses.replace(identity.tdx, **{name: b"\x99" * 48})))
                for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam", "mr_config_id", "mr_owner")
            ]
        else:
            changed = [
                ("mr_enclave", dataclasses.replace(identity, mr_enclave=b"\x99" * 32)),
                ("mr_signer", dataclasses.replace(identity, mr_signer=b"\x99" * 32)),
                ("isv_prod_id", dataclasses.replace(identity, isv_prod_id=(identity.isv_prod_id or 0) ^ 1)),
                ("min_isv_svn", dataclasses.replace(identity, min_isv_svn=(identity.min_isv_svn or 0) + 1)),
            ]
        for name, other in changed:
            assert refusal(policy_for(verdict, identities=(other,)), verdict) == f"policy.{name}"


def test_what_the_host_put_into_a_trust_domain_must_be_named(verdicts: list[Verdict]) -> None:
    chosen = [
        verdict for verdict in verdicts if isinstance(verdict.report, TdReport) and any(verdict.report.mr_config_id)
    ]
    assert len(chosen) == 38
    for verdict in chosen:
        assert isinstance(verdict.report, TdReport)
        plain = Identity(name="guest", tdx=TrustDomain(mr_td=verdict.report.mr_td))
        assert refusal(policy_for(verdict, identities=(plain,)), verdict) == "policy.mr_config_id"


@pytest.fixture
def explain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> Callable[..., tuple[int, Any]]:
    def run(row: dict[str, Any], policy: Policy) -> tuple[int, Any]:
        file = tmp_path / "policy.yaml"
        file.write_text(dump_policy(policy))
        command = ["policy", "explain", str(folder / row["file"]), "--policy", str(file), "--json"]
        command += ["--collateral", str(folder / row["collateral"]), "--at", str(row["valid_at"])]
        monkeypatch.setattr(sys, "argv", ["ensconce", *command])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def test_the_command_explains_real_quotes(
    rows: list[dict[str, Any]], verdicts: list[Verdict], explain: Callable[..., tuple[int, Any]]
) -> None:
    for kind in ("SGX v3", "TDX v4", "TDX v5"):
        row, verdict = next(pair for pair in zip(rows, verdicts, strict=True) if pair[0]["type"] == kind)
        status, said = explain(row, policy_for(verdict))
        assert (status, said["accepted"]) == (0, True)
        assert all(check["passed"] for check in [*said["platform"], *said["identities"][0]["checks"]])
        status, said = explain(row, policy_for(verdict, platforms=(bytes(16),), roots=("simulated:" + "0" * 64,)))
        assert (status, said["accepted"]) == (4, False)
        assert said["refusal"]["check"] == "policy.root"
        assert [check["field"] for check in said["platform"] if not check["passed"]] == ["root", "platforms"]


def test_the_command_says_what_is_not_genuine(
    folder: Path, verdicts: list[Verdict], explain: Callable[..., tuple[int, Any]]
) -> None:
    every = json.loads((folder / "index.json").read_text())
    row = next(row for row in every if row["expected_error"] and "signature is invalid" in row["expected_error"])
    status, said = explain(row, policy_for(verdicts[0]))
    assert status == 3
    assert said["error"]["check"]
