from __future__ import annotations

import hmac
import string

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.errors import IntegrityError
from ensconce.keys.keystore import KINDS, KeyEntry
from ensconce.keys.sealed import Header, Record, new_header, open_sealed, parse_header, seal
from ensconce.keys.unlock import KeyFile, Passphrase, ScryptCost, SealKeys

KEYS = SealKeys(seal=b"s" * 32, confirm=b"c" * 32)
HEADER = Header(None, b"salt" * 8)
RECORDS = {
    "a": Record(KeyEntry("a", "wrap", 1, None), bytes(16)),
    "b/1": Record(KeyEntry("b/1", "secret", 2, 3), None),
}


def sealed_payload(payload: bytes) -> bytes:
    start = HEADER.to_bytes() + bytes(12)
    associated = start + hmac.digest(KEYS.confirm, start, "sha256")
    return associated + AESGCM(KEYS.seal).encrypt(bytes(12), payload, associated)


def test_layout_as_documented() -> None:
    data = seal(Header(ScryptCost(17, 8, 1), bytes(range(32))), KEYS, RECORDS)
    assert data[:14] == b"ENSCONCE-KEYS\0"
    assert data[14:20] == bytes([0, 1, 1, 17, 8, 1])
    assert data[20:52] == bytes(range(32))
    assert data[64:96] == hmac.digest(KEYS.confirm, data[:64], "sha256")
    payload = AESGCM(KEYS.seal).decrypt(data[52:64], data[96:], data[:96])
    assert payload == (
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":null,"secret":"AAAAAAAAAAAAAAAAAAAAAA=="},'
        b'"b/1":{"kind":"secret","created":2,"retired":3,"secret":null}}}'
    )


def test_each_write_has_its_own_nonce_and_each_keystore_its_own_salt() -> None:
    assert len({seal(HEADER, KEYS, {})[52:64] for _ in range(50)}) == 50
    assert new_header(Passphrase("x")).salt != new_header(Passphrase("x")).salt


def test_the_cost_that_is_written_is_accepted() -> None:
    for unlock in (Passphrase("x"), KeyFile(None)):  # type: ignore[arg-type]
        header = new_header(unlock)
        assert parse_header(seal(header, KEYS, {})) == header


@given(
    st.dictionaries(
        st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=9),
        st.tuples(st.sampled_from(KINDS), st.binary(min_size=16, max_size=16), st.integers(0, 2**40), st.booleans()),
        max_size=5,
    )
)
def test_round_trip(drawn: dict[str, tuple]) -> None:
    records = {
        key_id: Record(KeyEntry(key_id, kind, created, created if retired else None), None if retired else secret)
        for key_id, (kind, secret, created, retired) in drawn.items()
    }
    data = seal(HEADER, KEYS, records)
    assert parse_header(data) == HEADER
    assert open_sealed(data, KEYS) == records


def _parse_and_open(data: bytes) -> dict[str, Record]:
    parse_header(data)
    return open_sealed(data, KEYS)


@settings(max_examples=300)
@given(st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(data: st.DataObject) -> None:
    sealed = seal(HEADER, KEYS, RECORDS)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(sealed) * 8 - 1))
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        bad = bytes(changed)
    else:
        bad = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    with pytest.raises(IntegrityError) as caught:
        _parse_and_open(bad)
    assert caught.value.check in ("keystore.format", "keystore.seal")


def test_a_wrong_key_and_a_damaged_payload_are_told_apart() -> None:
    sealed = bytearray(seal(HEADER, KEYS, RECORDS))
    with pytest.raises(IntegrityError) as wrong:
        open_sealed(bytes(sealed), SealKeys(seal=KEYS.seal, confirm=b"d" * 32))
    sealed[-1] ^= 1
    with pytest.raises(IntegrityError) as damaged:
        open_sealed(bytes(sealed), KEYS)
    assert wrong.value.check == damaged.value.check == "keystore.seal"
    assert "is wrong" in wrong.value.problem
    assert "is right" in damaged.value.problem


@pytest.mark.parametrize(
    "cost",
    [
        *[(1, 30, 8, 1), (1, 63, 8, 1), (1, 14, 8, 1), (1, 0, 0, 0)],
        *[(1, 17, 255, 1), (1, 17, 8, 255), (1, 17, 7, 1)],
        *[(2, 17, 8, 1), (0, 0, 0, 0), (3, 0, 0, 0)],
    ],
)
def test_a_hostile_file_cannot_choose_the_cost(cost: tuple[int, int, int, int]) -> None:
    data = bytearray(seal(HEADER, KEYS, {}))
    data[16:20] = bytes(cost)
    with pytest.raises(IntegrityError) as caught:
        parse_header(bytes(data))
    assert caught.value.check == "keystore.format"


def test_another_version_or_another_file() -> None:
    data = bytearray(seal(HEADER, KEYS, {}))
    data[15] = 2
    for bad in (bytes(data), b"", b"ENSCONCE-KEYS\0\0\1", bytes(4096)):
        with pytest.raises(IntegrityError) as caught:
            parse_header(bad)
        assert caught.value.check == "keystore.format"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{},"more":1}',
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":null,"secret":null}}}',
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":2,"secret":"AAAAAAAAAAAAAAAAAAAAAA=="}}}',
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":null,"secret":"AAAA"}}}',
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":null,"secret":"&&&&"}}}',
        b'{"keys":{"a":{"kind":"wrap","created":-1,"retired":1,"secret":null}}}',
        b'{"keys":{"a":{"kind":"what","created":1,"retired":1,"secret":null}}}',
        b'{"keys":{"A":{"kind":"wrap","created":1,"retired":1,"secret":null}}}',
        b'{"keys":{"a":{"kind":"wrap","created":"1","retired":1,"secret":null}}}',
        b'{"keys":{"a":{"kind":"wrap","created":1,"retired":1,"secret":null,"x":1}}}',
    ],
)
def test_content_that_is_authentic_and_yet_not_a_keystores(payload: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        open_sealed(sealed_payload(payload), KEYS)
    assert caught.value.check == "keystore.format"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
