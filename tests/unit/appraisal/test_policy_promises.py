"""What `explain` and `diff` say of policies is what `judge` does, for all policies and verdicts that come close."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from random import Random
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ensconce.appraisal.policy import (
    Advisories,
    AttributeMasks,
    Identity,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_diff import compare
from ensconce.appraisal.policy_explanation import explain
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.verdict import _MINT, GenuineVerdict, SimulatedVerdict, TcbStatus, Verdict
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.report import Attributes, SgxReport, TdReport

SIMULATED = "simulated:" + "0" * 64
ADVISORIES = ("INTEL-SA-00001", "INTEL-SA-00002")


class Maker:
    """Policies and verdicts over so few values that they often meet."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def maybe(self, value: Any) -> Any:
        return value if self._random.random() < 0.3 else None

    def hash(self, size: int) -> bytes:
        return bytes([self._random.randrange(2)]) * size

    def mask(self) -> Mask:
        mask = self._random.choice([1, 2, 3, 7])
        return Mask(mask, self._random.randrange(8) & mask)

    def identity(self, name: str) -> Identity:
        choice, maybe = self._random.choice, self.maybe
        receives = tuple(self._random.sample(["model/a", "model/b", "secret/c"], self._random.randrange(4)))
        common = {"name": name, "receives": receives, "debug": choice([False, False, True])}
        if choice([False, False, True]):
            registers = {"rtmr0": maybe(self.hash(48)), "mr_config_id": maybe(self.hash(48))}
            return Identity(tdx=TrustDomain(mr_td=self.hash(48), **registers), **common)
        common["attributes"] = maybe(AttributeMasks(flags=maybe(self.mask()), xfrm=self.mask()))
        if "secret/c" in receives:
            common["wire_v1"] = maybe(WireV1(secret="secret/c", form=choice(["raw", "hex"])))
        signer = {"mr_signer": self.hash(32), "isv_prod_id": choice([0, 1]), "min_isv_svn": choice([0, 1, 2])}
        if choice([False, True]):
            signer = {field: maybe(value) for field, value in signer.items()} | {"mr_enclave": self.hash(32)}
        return Identity(**signer, **common)

    def policy(self) -> Policy:
        choice, maybe = self._random.choice, self.maybe
        identities = tuple(map(self.identity, self._random.sample("xyz", choice([1, 2, 3]))))
        if choice([False, True]):
            return Policy(roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=identities)
        end = datetime.date(2027, 1, choice([1, 2, 3]))
        return Policy(
            roots=choice([("intel",), ("intel", SIMULATED)]),
            tcb_statuses=choice(
                [(TcbStatus.UP_TO_DATE,), (TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.OUT_OF_DATE, end))]
            ),
            identities=identities,
            advisories=maybe(
                choice([Advisories(accept=()), Advisories(accept=ADVISORIES[:1]), Advisories(refuse=ADVISORIES[:1])])
            ),
            min_tcb_evaluation_data_number=maybe(choice([1, 2, 3])),
            platforms=maybe((self.hash(16),)),
        )

    def changed(self, policy: Policy) -> Policy:
        other, identities = self.policy(), list(policy.identities)
        at = self._random.randrange(len(identities))
        changes = [
            {field.name: getattr(other, field.name)} for field in dataclasses.fields(policy) if field.name != "owners"
        ]
        one = identities[at]
        for new in (
            [*identities[:at], *identities[at + 1 :]],
            [*identities[:at], self.identity("new"), *identities[at:]],
            [*identities[:at], self.identity(one.name), *identities[at + 1 :]],
            [*identities[:at], dataclasses.replace(one, debug=not one.debug), *identities[at + 1 :]],
            [*identities[at:], *identities[:at]],
            [*identities[at + 1 :], dataclasses.replace(one, name="renamed"), *identities[:at]],
        ):
            changes += [{"identities": tuple(new)}] * 2
        return dataclasses.replace(policy, **self._random.choice(changes))

    def verdict(self) -> Verdict:
        choice = self._random.choice
        kind, root = choice([(GenuineVerdict, "intel")] * 3 + [(SimulatedVerdict, SIMULATED)])
        report = self.sgx() if choice([True, True, False]) else self.td()
        day = datetime.datetime(2027, 1, choice([1, 2, 3, 4]), choice([0, 23]), tzinfo=datetime.UTC)
        return kind(
            mint=_MINT,
            tee="sgx" if isinstance(report, SgxReport) else "tdx",
            root=root,
            status=choice([TcbStatus.UP_TO_DATE, TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE]),
            advisory_ids=choice([(), (), ADVISORIES[:1], ADVISORIES]),
            report=report,
            fmspc="00" * 6,
            pce_id="0000",
            ppid=self.hash(16).hex(),
            tcb_date=0,
            tcb_evaluation_data_number=choice([2, 3]),
            qe_evaluation_data_number=choice([1, 3]),
            valid_until=2**40,
            at=int(day.timestamp()),
        )

    def sgx(self) -> SgxReport:
        flags = Attributes.INIT | Attributes.MODE64BIT | self._random.choice([0, 0, Attributes.DEBUG])
        return SgxReport(
            cpu_svn=bytes(16),
            misc_select=0,
            isv_ext_prod_id=bytes(16),
            attributes=Attributes(flags, self._random.choice([1, 3, 7])),
            mr_enclave=self.hash(32),
            mr_signer=self.hash(32),
            config_id=bytes(64),
            isv_prod_id=self._random.randrange(2),
            isv_svn=self._random.randrange(3),
            config_svn=0,
            isv_family_id=bytes(16),
            report_data=bytes(64),
        )

    def td(self) -> TdReport:
        zero = bytes(48)
        attributes = 1 << 28 | self._random.choice([0, 0, 1])
        return TdReport(
            tee_tcb_svn=bytes(16),
            mr_seam=zero,
            mr_signer_seam=zero,
            seam_attributes=bytes(8),
            td_attributes=attributes.to_bytes(8, "little"),
            xfam=bytes(8),
            mr_td=self.hash(48),
            mr_config_id=self.hash(48),
            mr_owner=zero,
            mr_owner_config=zero,
            rtmr0=self.hash(48),
            rtmr1=zero,
            rtmr2=zero,
            rtmr3=zero,
            report_data=bytes(64),
        )


def gets(policy: Policy, verdict: Verdict) -> set[str]:
    """What a policy gives to who has this verdict; nothing when it is refused."""
    with contextlib.suppress(RefusedError):
        identity = policy.judge(verdict).identity
        return {"a certificate", *identity.receives, *([] if identity.wire_v1 is None else ["wire v1"])}
    return set()


@given(st.integers(0, 2**32).map(Random))
@settings(max_examples=400)
def test_what_is_explained_is_what_is_judged_and_no_change_is_hidden(random: Random) -> None:
    maker = Maker(random)
    old = new = None
    with contextlib.suppress(InputError):  # two identities of one measurement
        old = maker.policy()
        new = maker.changed(old)
    assume(old is not None and new is not None)
    assert old is not None
    assert new is not None
    changes = compare(old, new)
    # One form of a secret for another is neither more nor less.
    effects = {change.effect if "wire_v1" not in change.field else "both" for change in changes}
    for verdict in (maker.verdict() for _ in range(40)):
        explanation = explain(old, verdict)
        fitting = [identity for identity, checks in explanation.identities if all(check.passed for check in checks)]
        before, after = gets(old, verdict), gets(new, verdict)
        if fitting and all(check.passed for check in explanation.platform):
            assert old.judge(verdict).identity == fitting[0]
        else:
            assert not before
            assert isinstance(explanation.outcome, RefusedError)
        if after - before:
            assert effects & {"accepts", "both"}, (changes, verdict)
        if before - after:
            assert effects & {"refuses", "both"}, (changes, verdict)
