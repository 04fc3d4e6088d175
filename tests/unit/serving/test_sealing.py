from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.errors import InputError
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.sealing import key_id, seal_request, signed_part
from ensconce.serving.sealing import Sealing
from ensconce.tfserving.refusal import Code, RequestError

PATH = "/s/M"


def identity() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = CertificateAuthority.create("owner", 1_700_000_000).issue_server(
        key.public_key(), "a.example", now=1_700_000_000
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), chain


@pytest.fixture
def sealing() -> Sealing:
    made = Sealing(most_requests=3)
    made.present(*identity())
    return made


def sealed_to(sealing: Sealing, body: bytes = b"body") -> tuple[str, bytes]:
    key = sealing.statement.key
    return key_id(key), seal_request(key, "grpc", PATH, body)[0]


def refused(sealing: Sealing, key: str, sealed: bytes, path: str = PATH) -> Code:
    with pytest.raises(RequestError) as error:
        sealing.open(key, "grpc", path, sealed)
    return error.value.code


def test_the_certificates_key_vouches() -> None:
    key, chain = identity()
    sealing = Sealing()
    sealing.present(key, chain)
    statement = sealing.statement
    leaf = x509.load_pem_x509_certificates(chain)[0]
    assert statement.certificate == leaf.public_bytes(Encoding.DER)
    public = leaf.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(statement.signature, signed_part(statement.key), ec.ECDSA(SHA256()))


def test_a_request_is_taken_once(sealing: Sealing) -> None:
    key, sealed = sealed_to(sealing)
    assert sealing.open(key, "grpc", PATH, sealed)[0] == b"body"
    assert refused(sealing, key, sealed) is Code.ALREADY_EXISTS


def test_of_many_threads_one_gets_it() -> None:
    sealing = Sealing()
    sealing.present(*identity())
    key, sealed = sealed_to(sealing, bytes(1 << 20))

    def outcome(_: int) -> Code:
        try:
            sealing.open(key, "grpc", PATH, sealed)
        except RequestError as error:
            return error.code
        return Code.OK

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(outcome, range(32))) == [Code.OK] + [Code.ALREADY_EXISTS] * 31


def test_what_is_not_for_us_is_refused_and_not_remembered(sealing: Sealing) -> None:
    key, sealed = sealed_to(sealing)
    assert refused(sealing, "0" * 16, sealed) is Code.FAILED_PRECONDITION
    assert refused(sealing, key, sealed[:-1]) is Code.INVALID_ARGUMENT
    assert refused(sealing, key, b"") is Code.INVALID_ARGUMENT
    assert refused(sealing, key, sealed, "/s/Other") is Code.INVALID_ARGUMENT
    assert sealing.open(key, "grpc", PATH, sealed)[0] == b"body"


def test_a_key_that_took_its_fill_is_replaced(sealing: Sealing) -> None:
    key = sealing.statement.key
    taken = [sealed_to(sealing) for _ in range(4)]
    for name, sealed in taken[:3]:
        sealing.open(name, "grpc", PATH, sealed)
    assert sealing.statement.key != key
    # Neither again nor for the first time.
    assert {refused(sealing, *each) for each in taken} == {Code.FAILED_PRECONDITION}
    # Nor for who claims that it is for the new key.
    assert refused(sealing, key_id(sealing.statement.key), taken[0][1]) is Code.INVALID_ARGUMENT


def test_a_new_certificate_brings_a_new_key(sealing: Sealing) -> None:
    before, (name, sealed) = sealing.statement, sealed_to(sealing)
    sealing.present(*identity())
    assert sealing.statement.certificate != before.certificate
    assert sealing.statement.key != before.key
    assert refused(sealing, name, sealed) is Code.FAILED_PRECONDITION


def test_before_there_is_a_certificate() -> None:
    assert refused(Sealing(), "0" * 16, bytes(100)) is Code.FAILED_PRECONDITION


def test_a_key_that_cannot_vouch(rsa_key) -> None:
    pem = rsa_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InputError) as error:
        Sealing().present(pem, identity()[1])
    assert error.value.check == "serving.sealing"


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_the_answer_is_sealed_too(sealing: Sealing, size: int) -> None:
    key = sealing.statement.key
    sealed, answering = seal_request(key, "rest", PATH, bytes(size))

    async def handle(body: memoryview) -> tuple[int, bytes]:
        return 404, bytes(body) + b"!"

    answer = asyncio.run(sealing.answer(key_id(key), "rest", PATH, sealed, handle))
    assert answering.open(answer) == (404, bytes(size) + b"!")
