"""What an import wrote down, from the folder into the signed description."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ensconce.errors import InputError
from ensconce.models.description import parse_and_verify
from ensconce.models.importing.record import Agreement, ImportRecord
from ensconce.models.layout import IMPORT

AGREEMENT = Agreement(original="o", samples=1, random=False, max_abs=0.5, max_rel=0.25, top1=0.75, tolerance=0.3)
RECORD = ImportRecord(
    kind="onnx",
    source_sha256="ab" * 32,
    commitment_key="cd" * 32,
    engine="openvino",
    precision="int8",
    agreement=AGREEMENT,
    outputs=(),
)


def test_it_is_signed_with_the_rest(owner: Any) -> None:
    (owner.source / IMPORT).write_text(RECORD.model_dump_json())
    description = owner.seal()
    assert description.origin == RECORD.origin
    stored = (owner.models / "digits" / "1.json").read_bytes()
    assert parse_and_verify(stored, owner.signing_key.public_key()) == description
    assert json.loads(base64.b64decode(json.loads(stored)["payload"]))["origin"]["agreement"]["top1"] == 0.75


def test_a_version_that_was_not_imported_has_none(owner: Any) -> None:
    description = owner.seal()
    assert description.origin is None
    stored = (owner.models / "digits" / "1.json").read_bytes()
    assert "origin" not in json.loads(base64.b64decode(json.loads(stored)["payload"]))


@pytest.mark.parametrize(
    ("content", "check"),
    [
        (b"{}", "model.import"),
        (b" " * (1 << 21), "model.import"),
        (
            RECORD.model_copy(update={"engine": "tensorflow", "agreement": None}).model_dump_json().encode(),
            "model.engine",
        ),
    ],
    ids=["nothing", "too long", "another engine"],
)
def test_a_record_that_does_not_belong_there(owner: Any, content: bytes, check: str) -> None:
    (owner.source / IMPORT).write_bytes(content)
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == check
    assert owner.listing() == []
    assert not owner.keystore.entries()
