from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.chains import certificates_in, common_name, to_pem
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.pki import SimulatedVendor

VENDOR = SimulatedVendor(bytes(32), 1_790_000_000)
CHAIN = (VENDOR.pck().pem + VENDOR.pck_ca().pem + VENDOR.root.pem).encode()


def refused(pem: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        certificates_in(pem, "some.check")
    assert caught.value.check == "some.check"


@pytest.mark.parametrize("pem", [CHAIN, CHAIN + b"\0", CHAIN.replace(b"\n", b"\r\n"), CHAIN.rstrip(), CHAIN + b"\n\n"])
def test_chains_as_they_are_found(pem: bytes) -> None:
    chain = certificates_in(pem, "some.check")
    assert [common_name(certificate) for certificate in chain] == [
        "Intel SGX PCK Certificate",
        "Intel SGX PCK Platform CA",
        "Intel SGX Root CA",
    ]
    assert to_pem(chain).encode() == CHAIN


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\0",
        CHAIN + b"\0\0",
        CHAIN + b"more",
        b"Subject: somebody\n" + CHAIN,
        CHAIN.replace(b"CERTIFICATE", b"PUBLIC KEY"),
        CHAIN.replace(b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN CERTIFICATE-----\nA", 1),
        CHAIN.replace(b"MII", b"\xc3\xa4II", 1),
        CHAIN[:200],
        CHAIN * 2,
        CHAIN * 100,
        b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n",
    ],
)
def test_chains_that_are_none(pem: bytes) -> None:
    refused(pem)


def test_base64_has_one_form() -> None:
    """What the last digit says beyond the last byte is nothing, and must be zero."""
    end = CHAIN.index(b"=")
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for bit in (1, 2):
        other = digits[digits.index(CHAIN[end - 1 : end]) ^ bit :][:1]
        refused(CHAIN[: end - 1] + other + CHAIN[end:])


@given(st.integers(0, len(CHAIN) - 1), st.integers(1, 255))
def test_no_byte_makes_another_kind_of_error(place: int, mask: int) -> None:
    changed = bytearray(CHAIN)
    changed[place] ^= mask
    try:
        chain = certificates_in(bytes(changed), "some.check")
    except EvidenceError:
        return
    for certificate in chain:
        assert common_name(certificate).isprintable()
