from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from ensconce.errors import InputError
from ensconce.models.importing.record import MAX_RECORD, Agreement, ImportRecord, OutputAgreement, parse_record

AGREEMENT = Agreement(
    original="TensorFlow 2.21.0", samples=32, random=True, max_abs=0.5, max_rel=0.25, top1=None, tolerance=0.3
)
RECORD = ImportRecord(
    kind="onnx",
    source_sha256="ab" * 32,
    commitment_key="cd" * 32,
    engine="openvino",
    precision="bf16",
    agreement=AGREEMENT,
    outputs=(OutputAgreement(signature="s", output="y", max_abs=0.5, max_rel=0.25, top1=None),),
)


def test_round_trip() -> None:
    assert parse_record(RECORD.model_dump_json().encode()) == RECORD


def test_the_public_part_shows_no_hash_but_is_bound_to_it() -> None:
    origin = RECORD.origin
    assert origin.source == hmac.new(b"\xcd" * 32, b"\xab" * 32, hashlib.sha256).hexdigest()
    assert "ab" * 32 not in origin.model_dump_json()
    assert (origin.kind, origin.precision, origin.agreement) == ("onnx", "bf16", AGREEMENT)
    assert ImportRecord.new_key() != ImportRecord.new_key()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "ensconce-import-2"},
        {"source_sha256": "AB" * 32},
        {"commitment_key": ""},
        {"engine": "tensorflow"},
        {"agreement": None},
        {"agreement": {**AGREEMENT.model_dump(), "max_rel": -1.0}},
        {"agreement": {**AGREEMENT.model_dump(), "top1": 1.5}},
        {"agreement": {**AGREEMENT.model_dump(), "samples": 0}},
        {"precision": "f16"},
        {"more": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_no_import_writes(changes: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        parse_record(json.dumps({**RECORD.model_dump(mode="json"), **changes}).encode())
    assert caught.value.check == "model.import"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b" " * (MAX_RECORD + 1), b'{"agreement": NaN}'])
def test_no_record_at_all(data: bytes) -> None:
    with pytest.raises(InputError, match=r"model\.import"):
        parse_record(data)
