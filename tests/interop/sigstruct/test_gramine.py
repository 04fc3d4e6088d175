"""SIGSTRUCTs that Gramine's signing tool made."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ensconce.evidence.sigstruct import Sigstruct, parse_sigstruct


@pytest.fixture(params=["helloworld", "pydcap"])
def file(request: pytest.FixtureRequest, vectors: Path) -> Path:
    return vectors / "sigstruct" / f"{request.param}.sig"


@pytest.fixture
def sigstruct(file: Path) -> Sigstruct:
    return parse_sigstruct(file.read_bytes())


def test_fields_are_what_gramine_says(file: Path, sigstruct: Sigstruct) -> None:
    assert json.loads(file.with_suffix(".json").read_text()) == {
        "mr_signer": sigstruct.mr_signer.hex(),
        "mr_enclave": sigstruct.mr_enclave.hex(),
        "isv_prod_id": sigstruct.isv_prod_id,
        "isv_svn": sigstruct.isv_svn,
        "debug_enclave": sigstruct.debug,
    }
    assert sigstruct.date == datetime.date(2026, 11, 23)
    assert sigstruct.vendor == 0


def test_it_comes_back_as_it_went(file: Path, sigstruct: Sigstruct) -> None:
    assert sigstruct.to_bytes() == file.read_bytes()


def test_the_signed_bytes_are_those_that_were_signed(sigstruct: Sigstruct) -> None:
    modulus = int.from_bytes(sigstruct.modulus, "little")
    signature = int.from_bytes(sigstruct.signature, "little")
    key = rsa.RSAPublicNumbers(sigstruct.exponent, modulus).public_key()
    key.verify(signature.to_bytes(384, "big"), sigstruct.signed, padding.PKCS1v15(), hashes.SHA256())
    # The quotients that spare the CPU two divisions (Intel SDM volume 3D, "SIGSTRUCT").
    first, rest = divmod(signature * signature, modulus)
    assert int.from_bytes(sigstruct.q1, "little") == first
    assert int.from_bytes(sigstruct.q2, "little") == rest * signature // modulus
