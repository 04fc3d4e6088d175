"""Measurements as an in-toto Statement v1 (https://github.com/in-toto/attestation, spec/v1/statement.md).

Its subjects are the enclaves, by the digest of their SIGSTRUCT, and their images; where there are none any more, the
withdrawn enclaves by their MRENCLAVE, as a statement has to be about something. They follow from the predicate.
Canonical JSON, so that one list has one spelling.
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ensconce import strict_json
from ensconce.appraisal.published import Measurements
from ensconce.audit.entry import canonical
from ensconce.errors import EvidenceError, InputError
from ensconce.publication.dsse import MAX_PAYLOAD

__all__ = ["PREDICATE_TYPE", "malformed", "parse_statement", "read_model", "statement_bytes"]

PREDICATE_TYPE = "https://ensconce.invalid/published-measurements/v1"
_TYPE = "https://in-toto.io/Statement/v1"
M = TypeVar("M", bound=BaseModel)


def statement_bytes(measurements: Measurements) -> bytes:
    """The statement about these measurements.

    Raises:
        InputError: ``published.size``: it is too long.
    """
    subjects = {each.sigstruct: f"{each.name}.sig" for each in measurements.enclaves}
    subjects |= {image.sha256: image.name for each in measurements.enclaves for image in each.images}
    if not subjects:
        subjects = {each.mr_enclave: "withdrawn" for each in measurements.withdrawn}
    data = canonical(
        {
            "_type": _TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest}} for digest, name in sorted(subjects.items())],
            "predicateType": PREDICATE_TYPE,
            "predicate": measurements.model_dump(mode="json", exclude_none=True),
        }
    )
    if len(data) > MAX_PAYLOAD:
        raise InputError(
            "published.size",
            "the statement is too long",
            found=f"{len(data)} bytes",
            rule=f"at most {MAX_PAYLOAD} bytes",
            remedy="withdraw what is no longer used, or name fewer images",
        )
    return data


def parse_statement(data: bytes) -> Measurements:
    """Read a statement that :func:`statement_bytes` could have written, and no other.

    Raises:
        EvidenceError: ``published.statement``.
    """
    try:
        value = strict_json.loads(data) if len(data) <= MAX_PAYLOAD else None
    except ValueError as error:
        raise malformed("statement", str(error)[:200]) from None
    if not isinstance(value, dict):
        raise malformed("statement", "no object, or too long")
    for member, expected in (("_type", _TYPE), ("predicateType", PREDICATE_TYPE)):
        if value.get(member) != expected:
            raise malformed("statement", f"{member}: {ascii(value.get(member))[:100]}", f"{member}: {expected}")
    measurements = read_model(Measurements, value.get("predicate"), "statement")
    try:
        good = statement_bytes(measurements) == data
    except InputError:
        good = False
    if not good:
        raise malformed("statement", "another spelling, or subjects that its predicate does not name")
    return measurements


def read_model(kind: type[M], value: object, what: str) -> M:
    """A value of JSON types as a model.

    Args:
        kind: the model.
        value: as :func:`ensconce.strict_json.loads` gave it.
        what: of the file it is, for the error.

    Raises:
        EvidenceError: ``published.<what>``.
    """
    try:
        return kind.model_validate_json(json.dumps(value))
    except RecursionError:
        found = "nested too deeply"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        found = f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg']}"[:200]
    # Not raised from pydantic's error: a cycle through one is never collected, and strangers could fill the memory.
    raise malformed(what, found)


def malformed(what: str, found: str, rule: str = "as docs/reference/published.md has it") -> EvidenceError:
    """The error for a file, or a part of one, that is none of ours."""
    return EvidenceError(
        f"published.{what}",
        f"this is no {what} of published measurements",
        found=found,
        rule=rule,
        remedy="get it again from its publisher; a newer release may be needed to read it",
    )
