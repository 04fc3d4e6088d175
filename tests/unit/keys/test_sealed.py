from __future__ import annotations

import base64
import hmac
import json
import string
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.errors import IntegrityError
from ensconce.keys.header import Header, Shared, Wrapped, parse_header
from ensconce.keys.keystore import KINDS, KeyEntry
from ensconce.keys.lock import new_lock
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.sealed import Contents, Record, open_sealed, seal
from ensconce.keys.unlock import Passphrase, ScryptCost, SealKeys, Sort

ID = "ab" * 32
KEYS = SealKeys(SecretBuffer.of(b"s" * 32 + b"c" * 32))
SALT = b"salt" * 8
HEADER = Header(Sort.KEY_FILE, None, SALT)
FIRST = Header(Sort.KEY_FILE, None, SALT, version=1)
RECORDS = {
    "a": Record(KeyEntry("a", "wrap", 1, None), bytes(range(16))),
    "b/1": Record(KeyEntry("b/1", "secret", 2, 3), None),
    "c": Record(KeyEntry("c", "secret", 4, None), b"xyz"),
}


def plain(records: dict[str, Record]) -> dict[str, tuple[KeyEntry, bytes | None]]:
    return {
        key_id: (record.entry, None if record.secret is None else bytes(record.secret))
        for key_id, record in records.items()
    }


def sealed_payload(payload: bytes, header: Header = HEADER) -> bytes:
    start = header.to_bytes() + bytes(12)
    associated = start + hmac.digest(bytes(KEYS.confirm), start, "sha256")
    return associated + AESGCM(KEYS.seal).encrypt(bytes(12), payload, associated)


def opened(data: bytes, keys: SealKeys = KEYS) -> Contents:
    return open_sealed(data, parse_header(data), iter([keys]))[1]


def whole(index: object, secrets: bytes = b"") -> bytes:
    text = json.dumps(index).encode()
    return len(text).to_bytes(4, "big") + text + secrets


def test_layout_as_documented() -> None:
    header = Header(Sort.PASSPHRASE, ScryptCost(17, 8, 1), bytes(range(32)))
    data = seal(header, KEYS, Contents(ID, 7, RECORDS))
    assert data[:14] == b"ENSCONCE-KEYS\0"
    assert data[14:20] == bytes([0, 2, 1, 17, 8, 1])
    assert data[20:52] == bytes(range(32))
    assert data[52:56] == bytes(4)
    assert data[68:100] == hmac.digest(bytes(KEYS.confirm), data[:68], "sha256")
    payload = AESGCM(KEYS.seal).decrypt(data[56:68], data[100:], data[:100])
    index = (
        f'{{"generation":7,"identity":"{ID}","keys":['
        '{"created":1,"id":"a","kind":"wrap","retired":null,"size":16},'
        '{"created":2,"id":"b/1","kind":"secret","retired":3,"size":0},'
        '{"created":4,"id":"c","kind":"secret","retired":null,"size":3}]}'
    ).encode()
    assert payload == len(index).to_bytes(4, "big") + index + bytes(range(16)) + b"xyz"


def test_a_label_lies_between_salt_and_nonce() -> None:
    header = Header(Sort.VAULT, None, SALT, Wrapped(deployment="d.test", wrapped="vault:v1:AAAA"))
    data = seal(header, KEYS, Contents(ID, 1, {}))
    label = b'{"deployment":"d.test","wrapped":"vault:v1:AAAA"}'
    assert data[14:20] == bytes([0, 2, 3, 0, 0, 0])
    assert data[52:56] == len(label).to_bytes(4, "big")
    assert data[56 : 56 + len(label)] == label
    assert parse_header(data) == header
    assert opened(data).generation == 1


def test_version_1_is_read_and_gives_itself_an_identity_and_generation_0() -> None:
    payload = {
        "a": {"kind": "wrap", "created": 1, "retired": None, "secret": base64.b64encode(bytes(range(16))).decode()},
        "b/1": {"kind": "secret", "created": 2, "retired": 3, "secret": None},
    }
    data = sealed_payload(json.dumps({"keys": payload}).encode(), FIRST)
    assert len(FIRST.to_bytes()) == 52
    assert parse_header(data) == HEADER
    contents = opened(data)
    assert (contents.identity, contents.generation) == (SALT.hex(), 0)
    assert plain(contents.records) == {name: plain(RECORDS)[name] for name in ("a", "b/1")}


def test_each_write_has_its_own_nonce_and_each_keystore_its_own_salt() -> None:
    assert len({seal(HEADER, KEYS, Contents(ID, 1, {}))[56:68] for _ in range(50)}) == 50
    salts = {new_lock(Passphrase("long enough"), "d.test")[0].salt for _ in range(2)}
    assert len(salts) == 2


def test_contents_are_zeroed_when_their_block_ends() -> None:
    with opened(seal(HEADER, KEYS, Contents(ID, 1, RECORDS))) as contents:
        secret = contents.records["a"].secret
        assert secret is not None
        assert bytes(secret) == bytes(range(16))
    assert bytes(secret) == bytes(16)


@given(
    st.dictionaries(
        st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=9),
        st.tuples(st.sampled_from(KINDS), st.binary(min_size=16, max_size=16), st.integers(0, 2**40), st.booleans()),
        max_size=5,
    ),
    st.integers(1, 2**53 - 1),
    st.sampled_from(
        [
            HEADER,
            Header(Sort.PASSPHRASE, ScryptCost(15, 8, 1), SALT),
            Header(Sort.AWS_KMS, None, SALT, Wrapped(deployment="d", wrapped="A" * 8192)),
            Header(
                Sort.SHARES, None, SALT, Shared(deployment="d", created=9, identifier=32767, shares=16, threshold=2)
            ),
        ]
    ),
)
def test_round_trip(drawn: dict[str, tuple], generation: int, header: Header) -> None:
    records = {
        key_id: Record(KeyEntry(key_id, kind, created, created if retired else None), None if retired else secret)
        for key_id, (kind, secret, created, retired) in drawn.items()
    }
    data = seal(header, KEYS, Contents(ID, generation, records))
    assert parse_header(data) == header
    with opened(data) as contents:
        assert (contents.identity, contents.generation) == (ID, generation)
        assert plain(contents.records) == plain(records)
        assert contents.entries() == tuple(records[key_id].entry for key_id in sorted(records))


FILES = [
    seal(HEADER, KEYS, Contents(ID, 1, RECORDS)),
    seal(Header(Sort.VAULT, None, SALT, Wrapped(deployment="d", wrapped="v")), KEYS, Contents(ID, 1, RECORDS)),
    sealed_payload(b'{"keys":{}}', FIRST),
]


@settings(max_examples=400)
@given(st.sampled_from(FILES), st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(sealed: bytes, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(sealed) * 8 - 1))
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        bad = bytes(changed)
    else:
        bad = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    with pytest.raises(IntegrityError) as caught:
        opened(bad)
    assert caught.value.check in ("keystore.format", "keystore.seal")


@given(st.binary(max_size=300), st.sampled_from([b"", *(file[:n] for file in FILES for n in (14, 16, 17, 56))]))
def test_arbitrary_bytes_are_no_keystore(rest: bytes, start: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        opened(start + rest)
    assert caught.value.check in ("keystore.format", "keystore.seal")


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_authentic_payloads(payload: bytes, first: bool) -> None:
    with pytest.raises(IntegrityError) as caught:
        opened(sealed_payload(payload, FIRST if first else HEADER))
    assert caught.value.check == "keystore.format"


def test_a_wrong_key_and_a_damaged_payload_are_told_apart() -> None:
    sealed = bytearray(FILES[0])
    with pytest.raises(IntegrityError) as wrong:
        opened(bytes(sealed), SealKeys(SecretBuffer.of(b"s" * 32 + b"d" * 32)))
    sealed[-1] ^= 1
    with pytest.raises(IntegrityError) as damaged:
        opened(bytes(sealed))
    assert wrong.value.check == damaged.value.check == "keystore.seal"
    assert "is wrong" in wrong.value.problem
    assert "is right" in damaged.value.problem


@pytest.mark.parametrize(
    "cost",
    [
        *[(1, 30, 8, 1), (1, 63, 8, 1), (1, 14, 8, 1), (1, 0, 0, 0)],
        *[(1, 17, 255, 1), (1, 17, 8, 255), (1, 17, 7, 1)],
        *[(2, 17, 8, 1), (0, 0, 0, 0), (6, 0, 0, 0), (3, 0, 0, 1), (3, 17, 8, 1)],
    ],
)
def test_a_hostile_file_cannot_choose_the_cost(cost: tuple[int, int, int, int]) -> None:
    data = bytearray(FILES[0])
    data[16:20] = bytes(cost)
    with pytest.raises(IntegrityError) as caught:
        parse_header(bytes(data))
    assert caught.value.check == "keystore.format"


@pytest.mark.parametrize("sort", [3, 4, 5])
def test_version_1_knows_no_services(sort: int) -> None:
    data = bytearray(FILES[2])
    data[16] = sort
    with pytest.raises(IntegrityError, match="not one that we accept"):
        parse_header(bytes(data))


def test_another_version_or_another_file() -> None:
    data = bytearray(FILES[0])
    data[15] = 3
    for bad in (bytes(data), b"", b"ENSCONCE-KEYS\0\0\1", bytes(4096)):
        with pytest.raises(IntegrityError) as caught:
            parse_header(bad)
        assert caught.value.check == "keystore.format"


def _with_label(sort: Sort, label: bytes, length: int | None = None) -> bytes:
    fixed = HEADER.to_bytes()[:52]
    fixed = fixed[:16] + bytes([sort]) + fixed[17:]
    return fixed + (len(label) if length is None else length).to_bytes(4, "big") + label + bytes(100)


@pytest.mark.parametrize(
    ("sort", "label"),
    [
        (Sort.KEY_FILE, b"{}"),
        (Sort.VAULT, b""),
        (Sort.VAULT, b"[]"),
        (Sort.VAULT, b'{"deployment":"d"}'),
        (Sort.VAULT, b'{"deployment":"","wrapped":"v"}'),
        (Sort.VAULT, b'{"deployment":"d e","wrapped":"v"}'),
        (Sort.VAULT, b'{"deployment":"d", "wrapped":"v"}'),
        (Sort.VAULT, b'{"wrapped":"v","deployment":"d"}'),
        (Sort.VAULT, b'{"deployment":"d","wrapped":"' + b"v" * 8193 + b'"}'),
        (Sort.VAULT, b'{"deployment":"d","wrapped":"v","x":1}'),
        (Sort.AWS_KMS, b'{"created":1,"deployment":"d","identifier":1,"shares":3,"threshold":2}'),
        (Sort.SHARES, b'{"deployment":"d","wrapped":"v"}'),
        (Sort.SHARES, b'{"created":1,"deployment":"d","identifier":1,"shares":2,"threshold":3}'),
        (Sort.SHARES, b'{"created":1,"deployment":"d","identifier":1,"shares":17,"threshold":3}'),
        (Sort.SHARES, b'{"created":1,"deployment":"d","identifier":32768,"shares":3,"threshold":3}'),
    ],
)
def test_labels_that_say_nothing_are_refused(sort: Sort, label: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_header(_with_label(sort, label))
    assert caught.value.check == "keystore.format"


@pytest.mark.parametrize("length", [101, 16385, 2**32 - 1])
def test_a_labels_length_is_bounded(length: int) -> None:
    with pytest.raises(IntegrityError, match="cut off"):
        parse_header(_with_label(Sort.VAULT, b'{"deployment":"d","wrapped":"v"}', length))


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
def test_content_of_version_1_that_is_authentic_and_yet_not_a_keystores(payload: bytes) -> None:
    refuse(sealed_payload(payload, FIRST))


def _index(*keys: dict[str, object], **changes: object) -> dict[str, object]:
    return {"generation": 1, "identity": ID, "keys": list(keys)} | changes


def _key(**changes: object) -> dict[str, object]:
    return {"id": "a", "kind": "secret", "created": 1, "retired": None, "size": 2} | changes


WRONG: list[Callable[[], bytes]] = [
    lambda: b"",
    lambda: b"\0\0\0",
    lambda: b"\xff\xff\xff\xff{}",
    lambda: whole([]),
    lambda: whole({}),
    lambda: whole(_index(more=1)),
    lambda: whole(_index(generation=0)),
    lambda: whole(_index(generation=2**53)),
    lambda: whole(_index(identity="AB" * 32)),
    lambda: whole(_index(), b"x"),
    lambda: whole(_index(_key()), b"x"),
    lambda: whole(_index(_key()), b"xyz"),
    lambda: whole(_index(_key(size=0))),
    lambda: whole(_index(_key(size=-1))),
    lambda: whole(_index(_key(kind="wrap")), b"xy"),
    lambda: whole(_index(_key(kind="what")), b"xy"),
    lambda: whole(_index(_key(id="A")), b"xy"),
    lambda: whole(_index(_key(retired=3)), b"xy"),
    lambda: whole(_index(_key(created="1")), b"xy"),
    lambda: whole(_index(_key(more=1)), b"xy"),
    lambda: whole(_index(_key(), _key()), b"xyxy"),
    lambda: whole(_index(_key(id="b"), _key()), b"xyxy"),
]


@pytest.mark.parametrize("payload", WRONG)
def test_content_that_is_authentic_and_yet_not_a_keystores(payload: Callable[[], bytes]) -> None:
    refuse(sealed_payload(payload()))


def refuse(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        opened(data)
    assert caught.value.check == "keystore.format"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_what_is_right_in_all_this_opens() -> None:
    assert plain(opened(sealed_payload(whole(_index(_key()), b"xy"))).records) == {
        "a": (KeyEntry("a", "secret", 1, None), b"xy")
    }
