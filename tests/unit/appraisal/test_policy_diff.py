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
    (change,) = compare(PLAIN, dataclasses.replace(PLAIN, identities=(SIGNED, CODE, GUEST)))
    assert (change.effect, change.field) == ("other", "identities")


def test_the_same_meaning_is_no_difference() -> None:
    one = dataclasses.replace(PLAIN, roots=("intel", "simulated:" + "0" * 64), platforms=(bytes(16), b"\x01" * 16))
    other = dataclasses.replace(one, roots=one.roots[::-1], platforms=(b"\x01" * 16, bytes(16)))
    assert compare(one, other) == ()
