from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ensconce.appraisal.policy import AttributeMasks, Identity, TrustDomain, WireV1
from ensconce.appraisal.policy_mask import Mask
from ensconce.errors import InputError

CODE = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))
SIGNED = Identity(name="signed", mr_signer=b"\x22" * 32, isv_prod_id=7, min_isv_svn=3)
DOMAIN = TrustDomain(mr_td=b"\x44" * 48)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mr_signer": b"\x22" * 32},
        {"mr_signer": b"\x22" * 32, "isv_prod_id": 7},
        {"isv_prod_id": 7, "min_isv_svn": 3},
        {"mr_signer": b"\x22" * 32, "min_isv_svn": 3},
    ],
)
def test_an_identity_that_names_no_code_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Identity(name="x", **fields)
    assert caught.value.check == "policy.identity"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": " x"},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"mr_enclave": b"\x11" * 31},
        {"mr_signer": b""},
        {"isv_prod_id": 65536},
        {"min_isv_svn": -1},
        {"receives": ("model/",)},
        {"receives": ("model/digits/1",)},
        {"receives": ("ca/root",)},
        {"receives": ("model/*",)},
        {"receives": ("model/Digits",)},
        {"receives": ("model/digits", "model/digits")},
        {"receives": ("secret/",)},
        {"receives": ("secret/a/1",)},
        {"attributes": AttributeMasks(flags=Mask(1, 1)), "tdx": DOMAIN, "mr_enclave": None},
        {"tdx": DOMAIN},
        {"wire_v1": WireV1(secret="model/digits/1", form="raw")},
        {"wire_v1": WireV1(secret="secret/license", form="raw"), "receives": ("model/digits",)},
    ],
)
def test_values_out_of_bounds_are_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Identity(**({"name": "x", "mr_enclave": b"\x11" * 32} | fields))


def test_what_an_identity_may_receive() -> None:
    assert CODE.may_receive("model/digits/1")
    assert CODE.may_receive("model/digits/999")
    for other in ("model/digits", "model/other/1", "model/digits2/1", "ca/root", "model/digits/1/2", "", "digits"):
        assert not CODE.may_receive(other)
    assert not SIGNED.may_receive("model/digits/1")
    assert not SIGNED.may_receive("")


def test_secrets_are_received_by_name() -> None:
    licensed = dataclasses.replace(CODE, receives=("model/digits", "secret/license"))
    assert licensed.may_receive("secret/license")
    assert licensed.may_receive("model/digits/1")
    for other in ("secret/other", "secret/license/1", "secret/", "secret"):
        assert not licensed.may_receive(other)
    assert not CODE.may_receive("secret/license")
    with pytest.raises(InputError):
        WireV1(secret="model/digits", form="raw")
    with pytest.raises(InputError):
        WireV1(secret="secret/license", form="base64")  # type: ignore[arg-type]
