from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ensconce.encfile import encrypted_size
from ensconce.errors import IntegrityError
from ensconce.models.description import MAX_DESCRIPTION, FileDescription, ModelDescription, parse_and_verify, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key()


def file_of(path: str, size: int = 10) -> FileDescription:
    return FileDescription(path=path, size=size, encrypted_size=encrypted_size(size), fingerprint="ab" * 32)


DESCRIPTION = ModelDescription(
    name="digits",
    version=7,
    engine="openvino",
    files=(file_of("model.bin", 5000), file_of("model.xml")),
    key_id="model/digits/7",
    created=1_769_860_800,
)


def signed(**changes: object) -> bytes:
    """An envelope that is genuine, around whatever the payload says."""
    payload = json.dumps({**DESCRIPTION.to_json_object(), **changes}).encode()
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(KEY.sign(b"ensconce/model-description/1\0" + payload)).decode(),
            "key_id": hashlib.sha256(PUBLIC.public_bytes_raw()).hexdigest(),
        }
    ).encode()


def test_round_trip_and_layout() -> None:
    data = sign(DESCRIPTION, KEY)
    assert parse_and_verify(data, PUBLIC) == DESCRIPTION
    envelope = json.loads(data)
    payload = base64.b64decode(envelope["payload"])
    KEY.public_key().verify(base64.b64decode(envelope["signature"]), b"ensconce/model-description/1\0" + payload)
    assert json.loads(payload) == {
        "format": "ensconce-model-1",
        "name": "digits",
        "version": 7,
        "engine": "openvino",
        "files": [
            {"path": "model.bin", "size": 5000, "encrypted_size": 3 * 4096, "fingerprint": "ab" * 32},
            {"path": "model.xml", "size": 10, "encrypted_size": 4096, "fingerprint": "ab" * 32},
        ],
        "key_id": "model/digits/7",
        "created": 1_769_860_800,
    }
    assert parse_and_verify(signed(), PUBLIC) == DESCRIPTION


@given(st.data())
def test_any_changed_byte_of_the_payload_or_the_signature_is_noticed(data: st.DataObject) -> None:
    envelope = json.loads(sign(DESCRIPTION, KEY))
    name = data.draw(st.sampled_from(["payload", "signature"]))
    raw = bytearray(base64.b64decode(envelope[name]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    envelope[name] = base64.b64encode(raw).decode()
    with pytest.raises(IntegrityError) as caught:
        parse_and_verify(json.dumps(envelope).encode(), PUBLIC)
    assert caught.value.check == "description.signature"


def test_another_key() -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_and_verify(sign(DESCRIPTION, KEY), Ed25519PrivateKey.generate().public_key())
    assert caught.value.check == "description.key"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"payload":"","signature":"","key_id":"","more":1}',
        b'{"payload":"!","signature":"","key_id":""}',
        b'{"payload":1,"signature":"","key_id":""}',
        b" " * (MAX_DESCRIPTION + 1),
    ],
)
def test_envelopes_that_are_none(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_and_verify(data, PUBLIC)
    assert caught.value.check == "description.format"


FILE = {"path": "model.bin", "size": 10, "encrypted_size": 4096, "fingerprint": "ab" * 32}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "ensconce-model-2"},
        {"more": 1},
        {"name": "Digits"},
        {"name": "other"},
        {"version": 8},
        {"version": "7"},
        {"version": 0},
        {"engine": "onnx"},
        {"key_id": "model/digits/8"},
        {"created": -1},
        {"created": 1.5},
        {"files": []},
        {"files": [FILE, FILE]},
        {"files": [FILE | {"path": "z"}, FILE]},
        {"files": [FILE | {"path": "../model.bin"}]},
        {"files": [FILE | {"path": "/model.bin"}]},
        {"files": [FILE | {"size": -1}]},
        {"files": [FILE | {"encrypted_size": 4097}]},
        {"files": [FILE | {"size": 2**63}]},
        {"files": [FILE | {"fingerprint": "AB" * 32}]},
        {"files": [FILE | {"fingerprint": "ab" * 32 + "\n"}]},
        {"files": [FILE | {"more": 1}]},
    ],
)
def test_a_genuine_signature_does_not_excuse_a_wrong_field(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_and_verify(signed(**changes), PUBLIC)
    assert caught.value.check == "description.format"
    assert caught.value.found


def test_a_refusal_leads_to_no_error_of_pydantics() -> None:
    # A cycle through one is never collected.
    with pytest.raises(IntegrityError) as refused:
        parse_and_verify(signed(key_id="model/digits/8"), PUBLIC)
    assert refused.value.__context__ is None
    assert refused.value.__cause__ is None
