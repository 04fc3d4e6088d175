import dataclasses
import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ensconce.enclave.image import Image
from ensconce.enclave.manifest import EnclaveSpec, render
from ensconce.enclave.sign import check_attributes, check_measured, mr_signer, sign_manifest, sign_measured
from ensconce.errors import InputError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.platform.manifest import Manifest, parse_manifest

DATE = datetime.date(2026, 11, 23)


@pytest.fixture
def manifest(spec: EnclaveSpec, small_image: Image) -> Manifest:
    return parse_manifest(render(spec, small_image).encode())


def test_the_signature_is_what_the_cpu_checks(manifest: Manifest, signing_key: rsa.RSAPrivateKey) -> None:
    data = sign_manifest(manifest, bytes(range(32)), signing_key, date=DATE)
    modulus = int.from_bytes(data[128:512], "little")
    signature = int.from_bytes(data[516:900], "little")
    q1, q2 = int.from_bytes(data[1040:1424], "little"), int.from_bytes(data[1424:1808], "little")
    assert len(data) == 1808
    assert modulus == signing_key.public_key().public_numbers().n
    assert data[512:516] == (3).to_bytes(4, "little")
    signing_key.public_key().verify(
        signature.to_bytes(384, "big"), data[:128] + data[900:1028], padding.PKCS1v15(), hashes.SHA256()
    )
    # What EINIT computes instead of divisions (Intel SDM volume 3D): s^3 mod m from s, m, q1 and q2.
    square = signature * signature - q1 * modulus
    assert 0 <= square < modulus
    cube = square * signature - q2 * modulus
    assert cube == pow(signature, 3, modulus)


def test_the_parser_reads_what_was_signed(manifest: Manifest, signing_key: rsa.RSAPrivateKey) -> None:
    signed = parse_sigstruct(sign_manifest(manifest, bytes(range(32)), signing_key, date=DATE))
    assert signed.mr_enclave == bytes(range(32))
    assert signed.mr_signer == mr_signer(signing_key.public_key())
    assert (signed.isv_prod_id, signed.isv_svn, signed.date) == (manifest.isv_prod_id, manifest.isv_svn, DATE)
    assert not signed.debug
    assert signed.attributes.mode64bit
    assert not signed.attributes.provision_key


def test_debug_comes_from_the_manifest(spec: EnclaveSpec, small_image: Image, signing_key: rsa.RSAPrivateKey) -> None:
    text = render(spec, small_image).replace("debug = false", "debug = true")
    assert parse_sigstruct(sign_manifest(parse_manifest(text.encode()), bytes(32), signing_key, date=DATE)).debug


@pytest.mark.parametrize(("size", "exponent"), [(3072, 65537), (2048, 3)])
def test_a_key_that_sgx_does_not_accept_is_refused(manifest: Manifest, size: int, exponent: int) -> None:
    key = rsa.generate_private_key(public_exponent=exponent, key_size=size)
    with pytest.raises(InputError) as caught:
        sign_manifest(manifest, bytes(32), key, date=DATE)
    assert caught.value.check == "sign.key"


def test_a_measurement_of_another_length_is_refused(manifest: Manifest, signing_key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(InputError, match="32 bytes"):
        sign_manifest(manifest, bytes(31), signing_key, date=DATE)


def test_an_owner_signs_what_another_key_had_signed(manifest: Manifest, signing_key: rsa.RSAPrivateKey) -> None:
    throw_away = rsa.generate_private_key(public_exponent=3, key_size=3072)
    measured = parse_sigstruct(sign_manifest(manifest, bytes(range(32)), throw_away, date=DATE))
    measured = dataclasses.replace(measured, sw_defined=7, attribute_mask=Attributes(0xFF, 0x3))
    check_measured(measured, manifest)
    later = DATE + datetime.timedelta(days=1)
    signed = parse_sigstruct(sign_measured(measured, signing_key, date=later))
    assert signed.mr_signer == mr_signer(signing_key.public_key())
    same = {"modulus": measured.modulus, "signature": measured.signature, "q1": measured.q1, "q2": measured.q2}
    assert dataclasses.replace(signed, date=DATE, **same) == measured
    assert sign_manifest(manifest, bytes(32), signing_key, date=DATE) == sign_measured(
        parse_sigstruct(sign_manifest(manifest, bytes(32), throw_away, date=later)), signing_key, date=DATE
    )


@pytest.mark.parametrize("change", [{"isv_prod_id": 9}, {"isv_svn": 9}, {"attributes": Attributes(0x6, 0x3)}])
def test_a_sigstruct_of_another_manifest_is_refused(
    manifest: Manifest, signing_key: rsa.RSAPrivateKey, change: dict[str, Any]
) -> None:
    measured = parse_sigstruct(sign_manifest(manifest, bytes(32), signing_key, date=DATE))
    with pytest.raises(InputError) as caught:
        check_measured(dataclasses.replace(measured, **change), manifest)
    assert caught.value.check == "sign.measured"


@pytest.mark.parametrize(
    "change",
    [
        # The host may set DEBUG under the owner's signature: then it reads the enclave's memory.
        {"attribute_mask": Attributes(0xFFFF_FFFF_FFFF_FFFD, 0x3)},
        {"attribute_mask": Attributes(0, 0)},
        {"attributes": Attributes(0x14, 0x3)},
        {"attributes": Attributes(0x24, 0x3)},
        {"attribute_mask": Attributes(0x2, 0x3)},
    ],
)
def test_attributes_that_let_the_host_start_it_otherwise_are_not_signed(
    manifest: Manifest, signing_key: rsa.RSAPrivateKey, change: dict[str, Any]
) -> None:
    measured = parse_sigstruct(sign_manifest(manifest, bytes(32), signing_key, date=DATE))
    check_attributes(measured)
    with pytest.raises(InputError) as caught:
        check_attributes(dataclasses.replace(measured, **change))
    assert caught.value.check == "sign.attributes"
