from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.claims import encode_claims, encode_evidence, parse_claims, parse_evidence

KEY = b"SubjectPublicKeyInfo"
HASH = b"\x82\x01\x58\x20" + hashlib.sha256(KEY).digest()
NAME = b"\x6bpubkey-hash"


def refused(data: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        parse_claims(data)
    assert caught.value.remedy
    return caught.value.check


def test_the_bytes_of_the_specification() -> None:
    assert encode_claims(KEY) == b"\xa1" + NAME + b"\x58\x24" + HASH
    assert encode_claims(KEY, b"123") == b"\xa2" + NAME + b"\x58\x24" + HASH + b"\x65nonce\x43123"
    assert encode_evidence(b"q" * 300, b"c") == b"\xd9\xea\x60\x82\x59\x01\x2c" + b"q" * 300 + b"\x41c"


@given(st.binary(max_size=100), st.none() | st.binary(max_size=256))
def test_claims_come_back_as_they_went(key: bytes, nonce: bytes | None) -> None:
    encoded = encode_claims(key, nonce)
    claims = parse_claims(encoded)
    assert claims.encoded == encoded
    assert (claims.hash_algorithm, claims.pubkey_hash) == (1, hashlib.sha256(key).digest())
    assert claims.nonce == nonce


@given(st.binary(max_size=5000), st.binary(max_size=300))
def test_evidence_comes_back_as_it_went(quote: bytes, claims: bytes) -> None:
    assert parse_evidence(encode_evidence(quote, claims)) == (quote, claims)


@pytest.mark.parametrize(("algorithm", "size"), [(1, 32), (7, 48), (8, 64)])
def test_hashes(algorithm: int, size: int) -> None:
    value = b"\x82" + bytes([algorithm]) + b"\x58" + bytes([size]) + bytes(size)
    claims = parse_claims(b"\xa1" + NAME + b"\x58" + bytes([len(value)]) + value)
    assert (claims.hash_algorithm, len(claims.pubkey_hash)) == (algorithm, size)


def test_longer_heads_say_the_same() -> None:
    encoded = b"\xb9\x00\x01\x78\x0bpubkey-hash\x59\x00\x24" + HASH
    assert parse_claims(encoded).pubkey_hash == hashlib.sha256(KEY).digest()


def test_without_a_key_nothing_is_claimed() -> None:
    assert refused(b"\xa0") == "claims.pubkey_hash"
    assert refused(b"\xa1\x65nonce\x43123") == "claims.pubkey_hash"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xf6", b"\x80", b"\xbf\xff", b"\xa1", b"\xa3", b"\xa1\x01\x02"),
        encode_claims(KEY) + b"\0",
        encode_claims(KEY)[:-1],
        b"\xa2" + (NAME + b"\x58\x24" + HASH) * 2,
        b"\xa2" + NAME + b"\x58\x24" + HASH + b"\x64more\x41x",
        b"\xa1\x61\xff\x41x",
        b"\xa1" + NAME + HASH,
        b"\xa1" + NAME + b"\x5f\x58\x24" + HASH + b"\xff",
        b"\xa1" + NAME + b"\x58\x25" + HASH + b"\0",
        b"\xa1" + NAME + b"\x58\x24" + b"\x82\x02" + HASH[2:],
        b"\xa1" + NAME + b"\x58\x24" + b"\x82\x20" + HASH[2:],
        b"\xa1" + NAME + b"\x43\x82\x01\x40",
        b"\xa1" + NAME + b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1" + NAME + b"\x5a\xff\xff\xff\xff",
        encode_claims(KEY) + bytes(2000),
    ],
)
def test_claims_that_are_none(data: bytes) -> None:
    assert refused(data) == "claims.format"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x82\x41q\x41c", b"\xd9\xea\x61\x82\x41q\x41c", b"\xd9\xea\x60\x83\x41q\x41c\x41x"),
        *(b"\xd9\xea\x60\x82\x41q\x61c", b"\xd9\xea\x60\x9f\x41q\x41c\xff", b"\xd9\xea\x60\x82\x41q\x41c\0"),
        encode_evidence(bytes(20_000), b"c"),
        encode_evidence(b"q", bytes(2_000)),
    ],
)
def test_evidence_that_is_none(data: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_evidence(data)
    assert caught.value.check == "claims.format"


@given(st.binary(max_size=120))
def test_noise_is_bad_evidence(data: bytes) -> None:
    for parse in (parse_claims, parse_evidence):
        with pytest.raises(EvidenceError):
            parse(data)


def test_nonces_have_a_bound() -> None:
    with pytest.raises(ValueError):
        encode_claims(KEY, bytes(257))
