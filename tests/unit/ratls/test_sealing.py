from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ensconce.ratls.sealing import Answering, key_id, open_request, seal_request, signed_part

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PATH = "/tensorflow.serving.PredictionService/Predict"


# RFC 9180, sections 4 and 5.1, for DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM in base mode: once more, from
# the text, so that what the library makes is held against the standard and not against itself.

KEM_SUITE = b"KEM" + b"\x00\x20"
SUITE = b"HPKE" + b"\x00\x20" + b"\x00\x01" + b"\x00\x01"


def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256)


def expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\x01", hashlib.sha256)[:length]


def schedule(private: X25519PrivateKey, enc: bytes, info: bytes) -> tuple[bytes, bytes]:
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    prk = extract(KEM_SUITE, b"", b"eae_prk", shared)
    secret = expand(KEM_SUITE, prk, b"shared_secret", enc + private.public_key().public_bytes_raw(), 32)
    context = b"\x00" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
    prk = extract(SUITE, secret, b"secret", b"")
    return expand(SUITE, prk, b"key", context, 16), expand(SUITE, prk, b"base_nonce", context, 12)


def test_the_standards_vector() -> None:
    """RFC 9180, appendix A.1.1: shows that the computation above is the standard's."""
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    )
    enc = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    key, nonce = schedule(private, enc, bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"))
    assert key.hex() == "4531685d41d65f03dc48f6b8302c05b0"
    assert nonce.hex() == "56d890e5accaaf011cff4b7d"
    sealed = "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    assert AESGCM(key).decrypt(nonce, bytes.fromhex(sealed), b"Count-0") == b"Beauty is truth, truth beauty"


def test_a_request_is_the_standards_and_the_documents() -> None:
    sealed, answering = seal_request(PUBLIC, "rest", "/v1/models/m:predict", b"body")
    parts = (b"ensconce/1 sealed request", PUBLIC, b"rest", b"/v1/models/m:predict")
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    key, nonce = schedule(KEY, sealed[:32], info)
    plain = AESGCM(key).decrypt(nonce, sealed[32:], b"")
    assert (len(plain), plain[32:]) == (36, b"body")

    answer = answering.seal(404, b"no")
    prk = hmac.digest(sealed[:32] + answer[:32], plain[:32], hashlib.sha256)
    okm = hmac.digest(prk, b"ensconce/1 sealed answer\x01", hashlib.sha256)
    assert AESGCM(okm[:16]).decrypt(okm[16:28], answer[32:], None) == b"\x01\x94no"


@given(st.binary(max_size=300), st.sampled_from(["grpc", "rest"]), st.text(max_size=50), st.binary(max_size=300))
def test_there_and_back(body: bytes, api, path: str, answer: bytes) -> None:
    sealed, client = seal_request(PUBLIC, api, path, body)
    opened, server = open_request(KEY, api, path, sealed)
    assert opened == body
    assert server.encapsulated == client.encapsulated == sealed[:32]
    assert client.open(server.seal(7, answer)) == (7, answer)


@given(st.data())
def test_nothing_else_opens(data: st.DataObject) -> None:
    sealed, client = seal_request(PUBLIC, "grpc", PATH, b"body")
    at = data.draw(st.integers(0, len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="not sealed"):
        open_request(KEY, "grpc", PATH, bytes(flipped))
    with pytest.raises(ValueError, match="not sealed"):
        open_request(KEY, "grpc", PATH, sealed[:at])
    answer = client.seal(0, b"answer")
    at = data.draw(st.integers(0, len(answer) - 1))
    flipped = bytearray(answer)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    for wrong in (bytes(flipped), answer[:at], answer + b"\0"):
        with pytest.raises(ValueError, match="not an answer"):
            client.open(wrong)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match="not sealed"):
        open_request(KEY, "grpc", PATH, noise)
    with pytest.raises(ValueError, match="not an answer"):
        Answering(bytes(32), bytes(32)).open(noise)


def test_a_request_is_for_one_key_api_and_path() -> None:
    sealed, _ = seal_request(PUBLIC, "grpc", PATH, b"body")
    for key, api, path in [(OTHER, "grpc", PATH), (KEY, "rest", PATH), (KEY, "grpc", PATH[:-1]), (KEY, "grpc", "")]:
        with pytest.raises(ValueError, match="not sealed"):
            open_request(key, api, path, sealed)


def test_a_key_of_low_order_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        seal_request(bytes(32), "grpc", PATH, b"body")
    with pytest.raises(ValueError, match="not sealed"):
        open_request(KEY, "grpc", PATH, bytes(32) + bytes(100))


def test_too_short_within() -> None:
    parts = (b"ensconce/1 sealed request", PUBLIC, b"grpc", PATH.encode())
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    enc = OTHER.public_key().public_bytes_raw()
    key, nonce = schedule(KEY, enc, info)
    with pytest.raises(ValueError, match="without a secret"):
        open_request(KEY, "grpc", PATH, enc + AESGCM(key).encrypt(nonce, bytes(31), b""))


def test_answers_are_for_one_request() -> None:
    (one, first), (_, second) = (seal_request(PUBLIC, "grpc", PATH, b"body") for _ in range(2))
    answer = open_request(KEY, "grpc", PATH, one)[1].seal(0, b"for the first")
    assert first.open(answer) == (0, b"for the first")
    with pytest.raises(ValueError, match="not an answer"):
        second.open(answer)
    # A server's two answers under one secret would be under two keys.
    assert first.seal(0, b"") != first.seal(0, b"")


def test_what_is_secret_is_not_shown() -> None:
    _, answering = seal_request(PUBLIC, "grpc", PATH, b"body")
    assert "secret" not in repr(answering)


def test_the_signed_part_is_no_handshakes() -> None:
    part = signed_part(PUBLIC)
    # RFC 8446, section 4.4.3; bytes 32 to 63 of what a server of TLS 1.2 signs are random (RFC 5246, section 7.4.3).
    assert part[:64] == b" " * 64
    assert part[64:] == b"ensconce/1 sealing key\0" + PUBLIC
    assert key_id(PUBLIC) == hashlib.sha256(PUBLIC).hexdigest()[:16]


def test_the_computation_above_refuses() -> None:
    with pytest.raises(InvalidTag):
        AESGCM(schedule(KEY, PUBLIC, b"")[0]).decrypt(bytes(12), bytes(16), b"")
