from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ensconce.appraisal.policy import Acceptance, Identity, Policy, TrustDomain
from ensconce.appraisal.policy_explanation import explain
from ensconce.appraisal.verdict import TcbStatus, Verdict
from ensconce.errors import RefusedError

CODE = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))
SIGNED = Identity(name="signed", mr_signer=b"\x22" * 32, isv_prod_id=7, min_isv_svn=9)
GUEST = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x33" * 48))


def test_every_check_is_shown_whatever_came_of_the_first(verdict: Callable[..., Verdict]) -> None:
    judged = verdict(tcb_status="OutOfDate")
    policy = Policy(roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(CODE, SIGNED, GUEST))
    explanation = explain(policy, judged)
    assert isinstance(explanation.outcome, RefusedError)
    assert explanation.outcome.check == "policy.root"
    assert [(check.field, check.passed) for check in explanation.platform] == [
        ("root", False),
        ("tee", True),
        ("tcb_status", False),
        ("attributes", True),
        ("attributes", True),
    ]
    shown = {
        identity.name: [(check.field, check.passed) for check in checks] for identity, checks in explanation.identities
    }
    assert shown == {
        "code": [("debug", True), ("mr_enclave", True)],
        "signed": [("debug", True), ("mr_signer", True), ("isv_prod_id", True), ("min_isv_svn", False)],
        "guest": [("tee", False)],
    }


def test_the_outcome_is_the_policys_word(verdict: Callable[..., Verdict]) -> None:
    judged = verdict()
    policy = Policy(roots=(judged.root,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(SIGNED, CODE))
    explanation = explain(policy, judged)
    assert isinstance(explanation.outcome, Acceptance)
    assert explanation.outcome.identity == CODE
    assert all(check.passed for check in explanation.platform)
    refused = explain(dataclasses.replace(policy, identities=(SIGNED,)), judged).outcome
    assert isinstance(refused, RefusedError)
    assert refused.check == "policy.min_isv_svn"
