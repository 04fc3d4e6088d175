from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.collateral import MAX_COLLATERAL_SIZE, Collateral
from ensconce.errors import InputError
from ensconce.platform.simulated.pki import SimulatedVendor

SOUND = SimulatedVendor(bytes(32), 1_790_000_000).collateral(1_790_000_000)


def refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        Collateral.from_json(data)
    assert caught.value.check == "collateral.format"
    assert caught.value.remedy


def test_it_comes_back_as_it_went() -> None:
    assert Collateral.from_json(SOUND.to_json().encode()) == SOUND


def test_a_chain_in_place_of_the_quotes_is_dropped() -> None:
    value = json.loads(SOUND.to_json()) | {"pck_certificate_chain": "-----BEGIN CERTIFICATE-----"}
    collateral = Collateral.from_json(json.dumps(value).encode())
    assert collateral == SOUND
    assert "pck_certificate_chain" not in collateral.to_json()


@pytest.mark.parametrize("name", list(json.loads(SOUND.to_json())))
def test_every_member_is_needed_and_text(name: str) -> None:
    value: dict[str, Any] = json.loads(SOUND.to_json())
    for wrong in (1, None, [], {"a": 1}):
        refused(json.dumps(value | {name: wrong}).encode())
    del value[name]
    refused(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"null", b"[]", b'"text"', b"{}", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000),
        json.dumps(json.loads(SOUND.to_json()) | {"more": ""}).encode(),
        json.dumps(json.loads(SOUND.to_json()) | {"pck_crl": "0g"}).encode(),
        SOUND.to_json().encode()[:-1] + b',"tcb_info":""}',
        b" " * (MAX_COLLATERAL_SIZE + 1),
    ],
)
def test_files_that_are_none(data: bytes) -> None:
    refused(data)


@given(st.binary(max_size=200))
def test_anything_else_is_an_input_error(data: bytes) -> None:
    refused(data)
