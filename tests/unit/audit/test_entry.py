from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from enum import StrEnum

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.audit.entry import (
    GENESIS,
    MAX_LINE,
    Entry,
    canonical,
    parse_entry,
    sign_entry,
    signature_is_good,
    storable,
)
from ensconce.errors import InputError, IntegrityError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TIME = "2026-01-31T12:00:00Z"


def entry_of(**fields: object) -> Entry:
    return sign_entry(3, TIME, "key.released", storable("key.released", fields), bytes([7]) * 32, KEY)


def test_the_line_is_as_documented() -> None:
    fields = storable("key.released", {"keys": ["model/digits/1"], "svn": 2, "debug": False})
    entry = sign_entry(0, TIME, "key.released", fields, GENESIS, KEY)
    content = (
        '{"event":"key.released","fields":{"debug":false,"keys":["model/digits/1"],"svn":2},"previous":"'
        + "0" * 64
        + '","seq":0,"time":"2026-01-31T12:00:00Z"}'
    ).encode()
    digest = hashlib.sha256(b"ensconce/audit/entry/1\0" + content).digest()
    assert entry.hash == digest
    KEY.public_key().verify(entry.signature, b"ensconce/audit/entry-signature/1\0" + digest)
    line = json.loads(entry.to_line())
    assert line == json.loads(content) | {
        "hash": digest.hex(),
        "signature": base64.b64encode(entry.signature).decode(),
    }
    assert entry.to_line() == canonical(line) + b"\n"
    assert entry.leaf_hash() == hashlib.sha256(b"\0" + canonical(line)).digest()
    assert signature_is_good(entry, KEY.public_key())
    assert not signature_is_good(entry, Ed25519PrivateKey.generate().public_key())


SCALARS = st.one_of(st.text(max_size=30), st.integers(-(2**53) + 1, 2**53 - 1), st.booleans())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
        SCALARS | st.lists(SCALARS, max_size=4).map(tuple),
        max_size=4,
    )
)
def test_round_trip(fields: dict[str, object]) -> None:
    entry = entry_of(**fields)
    line = entry.to_line()
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert line.endswith(b"\n")
    assert parse_entry(line, 3) == entry


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    entry = entry_of(model="digits", reason="naïve\n")
    line = bytearray(entry.to_line())
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    # Only the signature is outside the hash; whoever checks it must notice.
    if b'"signature":"' in line[:at]:
        line_is_good = False
        with contextlib.suppress(IntegrityError):
            line_is_good = signature_is_good(parse_entry(bytes(line), 3), KEY.public_key())
        assert not line_is_good
    else:
        with pytest.raises(IntegrityError) as caught:
            parse_entry(bytes(line), 3)
        assert caught.value.check in ("audit.entry", "audit.hash", "audit.sequence")
        assert "entry 3 " in caught.value.problem


def test_control_characters_are_escaped() -> None:
    line = entry_of(reason="\x1b[2J\x00\u2028\u202e\ud800").to_line()
    assert b"\\u001b[2J\\u0000\\u2028\\u202e\\ud800" in line
    assert parse_entry(line, 3).fields["reason"] == "\x1b[2J\x00\u2028\u202e\ud800"


def test_long_text_is_cut_and_says_so() -> None:
    stored = entry_of(reason="x" * 5000, each=["y" * 1025], just="z" * 1024).fields
    assert stored["reason"] == "x" * 1003 + "... (5000 characters)"
    assert len(str(stored["reason"])) == 1024
    assert stored["each"][0].endswith("... (1025 characters)")  # type: ignore[index,union-attr]
    assert stored["just"] == "z" * 1024


def test_text_of_an_enumeration_is_its_value() -> None:
    class Status(StrEnum):
        FINE = "UpToDate"

    assert entry_of(status=Status.FINE).fields == {"status": "UpToDate"}
    assert type(entry_of(status=Status.FINE).fields["status"]) is str


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"bytes are refused"},
        {"key": bytearray(4)},
        {"key": [b"bytes"]},
        {"key": None},
        {"key": 1.5},
        {"key": 2**53},
        {"key": -(2**53)},
        {"key": {"nested": 1}},
        {"key": [["nested"]]},
        {"key": ["x"] * 257},
        {"Key": 1},
        {"": 1},
        {"a" * 65: 1},
        {f"f{n}": n for n in range(33)},
        {f"f{n}": ["\U0001f600" * 1000] * 256 for n in range(1)},
    ],
)
def test_fields_that_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        entry_of(**fields)
    assert caught.value.check == "audit.field"
    assert "bytes are refused" not in str(caught.value)


@pytest.mark.parametrize("event", ["", "Key", "key.", ".key", "key released", "a.b.c.d.e", "a" * 33, "key\n"])
def test_events_that_are_refused(event: str) -> None:
    with pytest.raises(InputError) as caught:
        storable(event, {})
    assert caught.value.check == "audit.event"


def resigned(**changes: object) -> bytes:
    """A line whose hash and signature are right for whatever it says."""
    value = {"event": "a.b", "fields": {}, "previous": "00" * 32, "seq": 3, "time": TIME} | changes
    digest = hashlib.sha256(b"ensconce/audit/entry/1\0" + canonical(value)).digest()
    signature = KEY.sign(b"ensconce/audit/entry-signature/1\0" + digest)
    return canonical(value | {"hash": digest.hex(), "signature": base64.b64encode(signature).decode()}) + b"\n"


def test_resigned_lines_are_good_to_begin_with() -> None:
    assert signature_is_good(parse_entry(resigned(), 3), KEY.public_key())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"seq":' + b"1" * 5000 + b"}\n",
        resigned()[:-1],
        resigned() + b"\n",
        b" " + resigned(),
        resigned().replace(b'"seq":3', b'"seq":3.0'),
        resigned(more=1),
        resigned(seq=True),
        resigned(seq="3"),
        resigned(seq=-3),
        resigned(time="2026-01-31 12:00:00Z"),
        resigned(time=5),
        resigned(event="A"),
        resigned(fields=[]),
        resigned(fields={"x": None}),
        resigned(fields={"x": 1.5}),
        resigned(fields={"x": "y" * 1025}),
        resigned(fields={"X": 1}),
        resigned(previous="00" * 31),
        resigned(previous="AA" * 32),
        resigned(previous=None),
        b'{"x":"' + b"y" * MAX_LINE + b'"}\n',
    ],
)
def test_lines_that_are_no_entries(line: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_entry(line, 3)
    assert caught.value.check == "audit.entry"


def test_an_entry_in_another_place() -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_entry(entry_of().to_line(), 4)
    assert caught.value.check == "audit.sequence"
    assert caught.value.found == "entry 3 in its place"
