from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable

import pytest

from ensconce.appraisal.verdict import GenuineVerdict, SimulatedVerdict, TcbStatus, Verdict
from ensconce.evidence.report import SgxReport, TdReport


def _fields(verdict: Verdict) -> dict[str, object]:
    return {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}


@pytest.mark.parametrize("kind", [Verdict, GenuineVerdict, SimulatedVerdict])
@pytest.mark.parametrize("mint", [None, object(), "verify_quote"])
def test_verdicts_come_from_verification_only(
    verdict: Callable[..., Verdict], kind: type[Verdict], mint: object
) -> None:
    fields = _fields(verdict())
    with pytest.raises(TypeError):
        kind(mint=mint, **fields)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        kind(**fields)  # type: ignore[arg-type]


def test_verdicts_cannot_be_changed_or_subclassed_into_being(verdict: Callable[..., Verdict]) -> None:
    real = verdict(tcb_status="OutOfDate")
    with pytest.raises(dataclasses.FrozenInstanceError):
        real.status = TcbStatus.UP_TO_DATE  # type: ignore[misc]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(real, status=TcbStatus.UP_TO_DATE)

    class Friendly(GenuineVerdict):
        pass

    from ensconce.appraisal import verdict as module

    with pytest.raises(TypeError):
        Friendly(mint=module._MINT, **_fields(real))  # type: ignore[arg-type]


def test_a_copy_is_the_same_verdict(verdict: Callable[..., Verdict]) -> None:
    real = verdict()
    assert copy.copy(real) == real
    assert pickle.loads(pickle.dumps(real)) == real


def test_json_has_the_documented_fields(verdict: Callable[..., Verdict]) -> None:
    value = verdict(tcb_status="SWHardeningNeeded", mr_enclave=b"\xab" * 32, isv_prod_id=5).to_json_object()
    assert json.loads(json.dumps(value)) == value
    assert value["status"] == "SWHardeningNeeded"
    assert value["advisory_ids"] == ["SIMULATED-SA-00001"]
    assert value["tee"] == "sgx"
    assert value["root"].startswith("simulated:")
    assert value["mr_enclave"] == "ab" * 32
    assert (value["isv_prod_id"], value["isv_svn"], value["debug"]) == (5, 3, False)
    assert value["mr_td"] is None
    assert value["at"] == "2026-09-21T14:13:20Z"
    assert value["valid_until"] == "2026-10-21T14:13:20Z"


def test_trust_domains_have_no_mr_enclave() -> None:
    report = TdReport.from_bytes(bytes(range(256)) * 2 + bytes(72))
    value = report.to_json_object()
    assert "mr_enclave" not in value
    assert value["mr_td"] == report.mr_td.hex()
    assert isinstance(SgxReport.from_bytes(bytes(384)).to_json_object()["mr_enclave"], str)
