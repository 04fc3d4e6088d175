"""What is written down of an import: all of it sealed with the model, and a part in the public description."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ensconce.errors import InputError
from ensconce.models.layout import IMPORT, Engine
from ensconce.strict import StrictModel

__all__ = ["MAX_RECORD", "Agreement", "ImportRecord", "Kind", "Origin", "OutputAgreement", "Precision", "parse_record"]

MAX_RECORD = 1024 * 1024
"""Longest record in bytes."""

Kind = Literal["saved-model", "frozen-graph", "tflite", "onnx"]
Precision = Literal["f32", "bf16", "int8"]

_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class Agreement(StrictModel):
    """How far the converted model is from its original, over all signatures and outputs.

    Attributes:
        original: what computed the original's answers, e.g. ``TensorFlow 2.21.0``.
        samples: on how many samples, of each signature.
        random: whether these were made up (from a fixed seed).
        max_abs: largest absolute difference.
        max_rel: largest difference relative to the largest magnitude of the same output.
        top1: share of rows with the same largest entry (or, of integers and strings, of equal values), of the output
            where it is least; None where no output has rows of scores.
        tolerance: the largest ``max_rel`` that was accepted.
    """

    original: _Text
    samples: Annotated[int, Field(ge=1)]
    random: bool
    max_abs: _Distance
    max_rel: _Distance
    top1: _Share | None
    tolerance: _Distance


class OutputAgreement(StrictModel):
    """The same of one output of one signature."""

    signature: str
    output: str
    max_abs: _Distance
    max_rel: _Distance
    top1: _Share | None


class Origin(StrictModel):
    """The public part, in the signed description.

    Attributes:
        kind: what was imported.
        source: HMAC-SHA256 of the source's SHA-256, keyed by the record's ``commitment_key``: whoever is shown the
            record can check it, and nobody else can try guesses.
        precision: of the arithmetic.
        agreement: None where the source was taken as it is.
    """

    kind: Kind
    source: _Hex32
    precision: Precision
    agreement: Agreement | None


class ImportRecord(StrictModel):
    """``ensconce-import.json``, sealed with the version.

    Attributes:
        format: version of this record.
        kind: what was imported.
        source_sha256: of the file; of a folder, SHA-256 of one line ``<sha256>  <path>`` for each file, sorted by path.
        commitment_key: 32 random bytes, hexadecimal.
        engine: for which engine.
        precision: of the arithmetic.
        agreement: with the original, in all.
        outputs: the same of each output.
    """

    format: Literal["ensconce-import-1"] = "ensconce-import-1"
    kind: Kind
    source_sha256: _Hex32
    commitment_key: _Hex32
    engine: Engine
    precision: Precision
    agreement: Agreement | None
    outputs: tuple[OutputAgreement, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.agreement is None) != (self.engine == "tensorflow"):
            raise ValueError("a converted model was compared, another was not")
        return self

    @staticmethod
    def new_key() -> str:
        """A fresh ``commitment_key``."""
        return secrets.token_hex(32)

    @property
    def origin(self) -> Origin:
        """What the description says of it."""
        source = hmac.new(bytes.fromhex(self.commitment_key), bytes.fromhex(self.source_sha256), hashlib.sha256)
        return Origin(kind=self.kind, source=source.hexdigest(), precision=self.precision, agreement=self.agreement)


def parse_record(data: bytes) -> ImportRecord:
    """Read ``ensconce-import.json``.

    Raises:
        InputError: ``model.import``: it is not what an import writes.
    """
    try:
        if len(data) <= MAX_RECORD:
            return ImportRecord.model_validate_json(data)
        found = f"{len(data)} bytes"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        found = ascii(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")[:200]
    raise InputError(
        "model.import",
        f"{IMPORT} is not what `ensconce model import` writes",
        found=found,
        rule="docs/reference/sealed-model.md",
        remedy="import the model again, or remove the file",
    )
