from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from ensconce.appraisal.policy import (
    Advisories,
    AttributeMasks,
    Identity,
    Owners,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_diff import Change, compare
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.verdict import TcbStatus

CODE = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))
SIGNED = Identity(name="signed", mr_signer=b"\x22" * 32, isv_prod_id=7, min_isv_svn=3)
GUEST = Identity(name="guest", tdx=TrustDomain(mr_td=b"\x33" * 48))
MARCH, MAY = datetime.date(2027, 3, 31), datetime.date(2027, 5, 31)
PLAIN = Policy(roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(CODE, SIGNED, GUEST))


def with_identity(identity: Identity, **fields: Any) -> dict[str, Any]:
    return {"identities": PLAIN.with_identity(dataclasses.replace(identity, **fields)).identities}


def lax(until: datetime.date) -> dict[str, Any]:
    return {"tcb_statuses": (TcbStatus.UP_TO_DATE, StatusUntil(TcbStatus.OUT_OF_DATE, until))}


# What is wider one way is narrower the other way; each row is read in both directions.
WIDER: list[tuple[dict[str, Any], dict[str, Any], str, str, str]] = [
    ({}, {"roots": ("intel", "simulated:" + "0" * 64)}, "roots", "simulated:" + "0" * 64, ""),
    ({}, lax(MARCH), "tcb_statuses", "OutOfDate until 2027-03-31", "OutOfDate until 2027-03-31"),
    (lax(MARCH), lax(MAY), "tcb_statuses", "OutOfDate until 2027-05-31, before until 2027-03-31", ""),
    (
        {"advisories": Advisories(accept=("INTEL-SA-00615",))},
        {},
        "advisories.accept",
        "every advisory",
        "but INTEL-SA-",
    ),
    (
        {"advisories": Advisories(accept=())},
        {"advisories": Advisories(accept=("INTEL-SA-00615",))},
        "advisories.accept",
        "INTEL-SA-00615",
        "INTEL-SA-00615",
    ),
    ({"advisories": Advisories(refuse=("INTEL-SA-00615",))}, {}, "advisories.refuse", "INTEL-SA-00615", ""),
    (
        {"min_tcb_evaluation_data_number": 18},
        {"min_tcb_evaluation_data_number": 17},
        "min_tcb_evaluation_data_number",
        "18 to 17",
        "17 to 18",
    ),
    ({"min_tcb_evaluation_data_number": 18}, {}, "min_tcb_evaluation_data_number", "18 to any", "any to 18"),
    ({"platforms": (bytes(16),)}, {}, "platforms", "every machine", "every machine, but " + "00" * 16),
    ({"platforms": (bytes(16),)}, {"platforms": (bytes(16), b"\x01" * 16)}, "platforms", "01" * 16, "01" * 16),
    ({"identities": (CODE, SIGNED)}, {}, "identity 'guest'", "mr_td " + "33" * 48, "receives nothing"),
    ({}, with_identity(SIGNED, min_isv_svn=2), "identity 'signed', min_isv_svn", "3 to 2", "2 to 3"),
    ({}, with_identity(CODE, debug=True), "identity 'code', debug", "debug enclaves", "debug enclaves"),
    (
        {},
        with_identity(CODE, receives=("model/digits", "secret/license")),
        "identity 'code', receives",
        "secret/license",
        "secret/license",
    ),
    (
        with_identity(CODE, attributes=AttributeMasks(xfrm=Mask(3, 3))),
        {},
        "identity 'code', attributes.xfrm",
        "any",
        "only 0x3 under 0x3",
    ),
    (
        with_identity(GUEST, tdx=TrustDomain(mr_td=b"\x33" * 48, rtmr1=b"\x44" * 48)),
        {},
        "identity 'guest', tdx.rtmr1",
        "any",
        "only " + "44" * 48,
    ),
    (
        {},
        with_identity(CODE, wire_v1=WireV1(secret="model/digits/1", form="raw")),
        "identity 'code', wire_v1",
        "off to model/digits/1 as raw",
        "model/digits/1 as raw to off",
    ),
]


@pytest.mark.parametrize(("narrow", "wide", "field", "wider", "narrower"), WIDER)
def test_wider_and_narrower(
    narrow: dict[str, Any], wide: dict[str, Any], field: str, wider: str, narrower: str
) -> None:
    small, large = dataclasses.replace(PLAIN, **narrow), dataclasses.replace(PLAIN, **wide)
    (change,) = compare(small, large)
    assert (change.effect, change.field) == ("accepts", field)
    assert wider in change.text
    (change,) = compare(large, small)
    assert (change.effect, change.field) == ("refuses", field)
    assert narrower in change.text


def test_another_measurement_is_both() -> None:
    new = dataclasses.replace(PLAIN, **with_identity(CODE, mr_enclave=b"\x99" * 32))
    assert compare(PLAIN, new) == (
        Change("accepts", "identity 'code', mr_enclave", "99" * 32),
        Change("refuses", "identity 'code', mr_enclave", "11" * 32),
    )


def test_what_decides_over_policies_is_told_apart() -> None:
    owners = Owners(required=1, keys=("ed25519:" + "0a" * 32,))
    new = dataclasses.replace(PLAIN, serial=2, service="digits.example.test", owners=owners)
    assert {(change.effect, change.field) for change in compare(PLAIN, new)} == {
        ("other", "serial"),
        ("other", "service"),
        ("other", "owners"),
    }


def test_a_new_name_is_no_new_code() -> None:
    new = dataclasses.replace(PLAIN, identities=(dataclasses.replace(CODE, name="other"), SIGNED, GUEST))
    assert compare(PLAIN, new) == (Change("other", "identity 'code'", "is now called 'other'"),)


def test_the_order_of_identities_is_told() -> None:
    change, loss = compare(PLAIN, dataclasses.replace(PLAIN, identities=(SIGNED, CODE, GUEST)))
    assert loss == Change("refuses", "identity 'signed'", "may have been 'code' before, which received model/digits")
    assert (change.effect, change.field) == ("other", "identities")


def test_the_same_meaning_is_no_difference() -> None:
    one = dataclasses.replace(PLAIN, roots=("intel", "simulated:" + "0" * 64), platforms=(bytes(16), b"\x01" * 16))
    other = dataclasses.replace(one, roots=one.roots[::-1], platforms=(b"\x01" * 16, bytes(16)))
    assert compare(one, other) == ()


class TestWhatADiffMustNotHide:
    """Each of these once let an owner show the others a change that looked harmless."""

    QUARANTINED = dataclasses.replace(CODE, name="quarantined", receives=())
    ANY_OF_SIGNER = dataclasses.replace(SIGNED, receives=("model/digits",))

    def test_what_falls_to_another_identity_when_one_is_removed(self) -> None:
        old = dataclasses.replace(PLAIN, identities=(self.QUARANTINED, self.ANY_OF_SIGNER))
        new = dataclasses.replace(PLAIN, identities=(self.ANY_OF_SIGNER,))
        text = "may have been 'quarantined' before, which did not receive model/digits"
        assert Change("accepts", "identity 'signed'", text) in compare(old, new)

    def test_what_falls_to_another_identity_when_one_is_narrowed(self) -> None:
        old = dataclasses.replace(PLAIN, identities=(self.QUARANTINED, self.ANY_OF_SIGNER))
        new = old.with_identity(dataclasses.replace(self.QUARANTINED, min_isv_svn=9))
        assert {change.effect for change in compare(old, new)} == {"accepts", "refuses"}

    def test_what_a_new_identity_takes_from_another(self) -> None:
        old = dataclasses.replace(PLAIN, identities=(self.ANY_OF_SIGNER,))
        new = dataclasses.replace(PLAIN, identities=(self.QUARANTINED, self.ANY_OF_SIGNER))
        text = "may have been 'signed' before, which received model/digits"
        assert Change("refuses", "identity 'quarantined'", text) in compare(old, new)

    def test_identities_that_nothing_fits_at_once_take_nothing_from_each_other(self) -> None:
        other = dataclasses.replace(CODE, name="other", mr_enclave=b"\x77" * 32, receives=())
        old = dataclasses.replace(PLAIN, identities=(other, CODE))
        (change,) = compare(old, dataclasses.replace(PLAIN, identities=(CODE,)))
        assert change.effect == "refuses"

    @pytest.mark.parametrize("name", ["mr_config_id", "mr_owner", "mr_owner_config"])
    def test_what_the_host_chooses_is_zero_where_it_is_not_given(self, name: str) -> None:
        tdx = TrustDomain(mr_td=b"\x33" * 48, **{name: b"\x44" * 48})
        new = dataclasses.replace(PLAIN, **with_identity(GUEST, tdx=tdx))
        field = f"identity 'guest', tdx.{name}"
        given, zero = "44" * 48, "00" * 48
        assert compare(PLAIN, new) == (Change("accepts", field, given), Change("refuses", field, zero))
        assert compare(new, PLAIN) == (Change("accepts", field, zero), Change("refuses", field, given))

    def test_leave_to_ask_over_wire_v1_in_a_new_identity(self) -> None:
        lax = Identity(
            name="lax",
            mr_enclave=b"\x77" * 32,
            receives=("secret/license",),
            attributes=AttributeMasks(xfrm=Mask(3, 3)),
            wire_v1=WireV1(secret="secret/license", form="hex"),
        )
        (change,) = compare(PLAIN, dataclasses.replace(PLAIN, identities=(*PLAIN.identities, lax)))
        assert "wire_v1 secret/license as hex" in change.text
        assert "xfrm 0x3 under 0x3" in change.text

    def test_an_enclave_that_becomes_a_trust_domain_is_another_identity(self) -> None:
        new = dataclasses.replace(PLAIN, identities=(dataclasses.replace(GUEST, name="code"), SIGNED))
        changes = [change for change in compare(PLAIN, new) if change.field == "identity 'code'"]
        assert [change.effect for change in changes] == ["refuses", "accepts"]
        assert "any" not in [change.text for change in changes]
