from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, Sigstruct, parse_sigstruct

SOUND = Sigstruct(
    vendor=0,
    date=datetime.date(2026, 11, 23),
    sw_defined=0,
    modulus=bytes(range(256)) + bytes(128),
    exponent=3,
    signature=b"\1" * 384,
    misc_select=0,
    misc_mask=0xFFFFFFFF,
    cet_attributes=0,
    cet_attributes_mask=0,
    isv_family_id=bytes(16),
    attributes=Attributes(6, 3),
    attribute_mask=Attributes(2**64 - 1, 2**64 - 1),
    mr_enclave=b"\2" * 32,
    isv_ext_prod_id=bytes(16),
    isv_prod_id=7,
    isv_svn=3,
    q1=b"\3" * 384,
    q2=b"\4" * 384,
)


def refused(data: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        parse_sigstruct(data)
    assert caught.value.remedy
    return caught.value.check


def patched(at: int, value: bytes) -> bytes:
    data = SOUND.to_bytes()
    return data[:at] + value + data[at + len(value) :]


def test_it_comes_back_as_it_went() -> None:
    data = SOUND.to_bytes()
    assert len(data) == SIGSTRUCT_SIZE
    assert parse_sigstruct(data) == SOUND
    assert data[20:24].hex() == "23112620"  # the date in binary-coded decimal, little-endian
    assert SOUND.signed == data[:128] + data[900:1028]
    assert SOUND.mr_signer == hashlib.sha256(SOUND.modulus).digest()
    assert SOUND.debug
    assert not replace(SOUND, attributes=Attributes(4, 3)).debug


@pytest.mark.parametrize(
    ("at", "value", "check"),
    [
        (0, b"\7", "sigstruct.header"),
        (24, b"\7", "sigstruct.header"),
        (44, b"\1", "sigstruct.reserved"),
        (127, b"\1", "sigstruct.reserved"),
        (910, b"\1", "sigstruct.reserved"),
        (992, b"\1", "sigstruct.reserved"),
        (1028, b"\1", "sigstruct.reserved"),
        (512, b"\1\0\1\0", "sigstruct.exponent"),
        (20, b"\x23\x13\x26\x20", "sigstruct.date"),
        (20, b"\0\0\0\0", "sigstruct.date"),
        (20, b"\xab\xcd\xef\x01", "sigstruct.date"),
    ],
)
def test_what_must_be_constant(at: int, value: bytes, check: str) -> None:
    assert refused(patched(at, value)) == check


@pytest.mark.parametrize("data", [b"", SOUND.to_bytes()[:-1], SOUND.to_bytes() + b"\0"])
def test_other_sizes(data: bytes) -> None:
    assert refused(data) == "sigstruct.size"


@pytest.mark.parametrize("name", ["modulus", "signature", "q1", "q2", "isv_family_id", "isv_ext_prod_id", "mr_enclave"])
def test_fields_of_another_size_are_not_written(name: str) -> None:
    with pytest.raises(ValueError):
        replace(SOUND, **{name: b"\1"}).to_bytes()  # type: ignore[arg-type]


@given(st.integers(0, SIGSTRUCT_SIZE - 1), st.integers(1, 255))
def test_every_byte_is_somewhere(at: int, mask: int) -> None:
    changed = patched(at, bytes([SOUND.to_bytes()[at] ^ mask]))
    try:
        parsed = parse_sigstruct(changed)
    except EvidenceError:
        return
    assert parsed != SOUND
    assert parsed.to_bytes() == changed


@given(st.binary(min_size=SIGSTRUCT_SIZE, max_size=SIGSTRUCT_SIZE))
def test_noise_is_none(data: bytes) -> None:
    assert refused(data).startswith("sigstruct.")
