"""The vendor's two signed JSON documents: TCB info (version 3) and the identity of the quoting enclave (version 2).

Source: Intel PCS API version 4, "Get TCB Info" and "Get Quoting Enclave Identity". Members that are not known are
tolerated, at any depth: Intel has added some without a new version number. A member that is there twice is not.
Signatures are checked by dcap-qvl, after this.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from ensconce import strict_json
from ensconce.errors import EvidenceError

__all__ = ["Document", "TcbInfo", "read_qe_identity", "read_tcb_info"]

_MAX_LEVELS = 256
_HEX = {size: re.compile(rf"[0-9A-Fa-f]{{{size}}}") for size in (4, 12)}


@dataclass(frozen=True, slots=True)
class Document:
    """What both documents have.

    Attributes:
        issued: seconds since 1970.
        next_update: when the next one is due, seconds since 1970.
        evaluation_number: ``tcbEvaluationDataNumber``.
    """

    issued: int
    next_update: int
    evaluation_number: int


@dataclass(frozen=True, slots=True)
class TcbInfo(Document):
    """TCB info, as far as it must fit the platform.

    Attributes:
        fmspc: kind of platform, 12 upper-case hexadecimal digits.
        pce_id: 4 upper-case hexadecimal digits.
    """

    fmspc: str
    pce_id: str


# Both documents serve for a day and thousands of quotes: what was read last is kept.
@functools.lru_cache(maxsize=8)
def read_tcb_info(text: str, tee: Literal["sgx", "tdx"]) -> TcbInfo:
    """Read TCB info and check that it is for this kind of environment, whole, and in order.

    Raises:
        EvidenceError: ``collateral.tcb_info.format``, ``.id``, ``.version``, ``.tcb_type`` or ``.levels``.
    """
    reader = _Reader("tcb_info", text)
    reader.must_be("id", "id", tee.upper())
    reader.must_be("version", "version", 3)
    reader.must_be("tcb_type", "tcbType", 0)
    fmspc, pce_id = reader.hexadecimal("fmspc", 12), reader.hexadecimal("pceId", 4)
    # One row per level: its least security versions, then the PCE's.
    levels = [_tcb_level(reader, level, tee) for level in reader.levels()]
    for higher, lower in itertools.combinations(levels, 2):
        if all(a <= b for a, b in zip(higher, lower, strict=True)):
            raise reader.wrong("levels", "its TCB levels are not in descending order", "a level that nothing reaches")
    return TcbInfo(*reader.dates(), reader.number("tcbEvaluationDataNumber"), fmspc, pce_id)


@functools.lru_cache(maxsize=8)
def read_qe_identity(text: str, tee: Literal["sgx", "tdx"]) -> Document:
    """Read the identity of the quoting enclave and check that it is for this kind of environment, and in order.

    Raises:
        EvidenceError: ``collateral.qe_identity.format``, ``.id``, ``.version`` or ``.levels``.
    """
    reader = _Reader("qe_identity", text)
    reader.must_be("id", "id", "QE" if tee == "sgx" else "TD_QE")
    reader.must_be("version", "version", 2)
    svns = [reader.integer(level.get("tcb"), "isvsvn", 0xFFFF) for level in reader.levels()]
    if any(higher <= lower for higher, lower in itertools.pairwise(svns)):
        raise reader.wrong("levels", "its TCB levels are not in descending order", str(svns)[:100])
    return Document(*reader.dates(), reader.number("tcbEvaluationDataNumber"))


def _tcb_level(reader: _Reader, level: dict[str, Any], tee: str) -> list[int]:
    tcb = level.get("tcb")
    values: list[int] = []
    for member in ("sgxtcbcomponents",) if tee == "sgx" else ("sgxtcbcomponents", "tdxtcbcomponents"):
        components = tcb.get(member) if isinstance(tcb, dict) else None
        if not isinstance(components, list) or len(components) != 16:
            raise reader.wrong("levels", f"a TCB level does not have 16 {member}", str(components)[:100])
        values += [reader.integer(component, "svn", 0xFF) for component in components]
    return [*values, reader.integer(tcb, "pcesvn", 0xFFFF)]


class _Reader:
    """One document, and how its errors are called."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        try:
            value = strict_json.loads(text.encode())
        except ValueError as error:
            raise self.wrong("format", "it is not JSON", str(error)[:200]) from error
        if not isinstance(value, dict):
            raise self.wrong("format", "it is not a JSON object", type(value).__name__)
        self._value: dict[str, Any] = value

    def wrong(self, check: str, problem: str, found: str, rule: str | None = None) -> EvidenceError:
        what = "TCB info" if self._name == "tcb_info" else "QE identity"
        return EvidenceError(
            f"collateral.{self._name}.{check}",
            f"the {what} cannot be used: {problem}",
            found=found,
            rule=rule or "Intel PCS API version 4",
            remedy="fetch the collateral anew, for the platform and the kind of quote at hand",
        )

    def must_be(self, check: str, member: str, right: str | int) -> None:
        found = self._value.get(member)
        if found != right or type(found) is not type(right):
            raise self.wrong(check, f"its {member} is another", json.dumps(found)[:100], json.dumps(right))

    def hexadecimal(self, member: str, digits: int) -> str:
        found = self._value.get(member)
        if not isinstance(found, str) or not _HEX[digits].fullmatch(found):
            raise self.wrong("format", f"its {member} is malformed", str(found)[:100], f"{digits} hexadecimal digits")
        return found.upper()

    def number(self, member: str) -> int:
        return self.integer(self._value, member, 0xFFFFFFFF)

    def integer(self, holder: object, member: str, limit: int) -> int:
        found = holder.get(member) if isinstance(holder, dict) else None
        if type(found) is not int or not 0 <= found <= limit:
            raise self.wrong("format", f"a {member} is malformed", str(found)[:100], f"an integer from 0 to {limit}")
        return found

    def dates(self) -> tuple[int, int]:
        issued, next_update = self._date("issueDate"), self._date("nextUpdate")
        if next_update <= issued:
            raise self.wrong("format", "it expires before it is issued", f"{issued} to {next_update}")
        return issued, next_update

    def levels(self) -> list[dict[str, Any]]:
        levels = self._value.get("tcbLevels")
        if not isinstance(levels, list) or not 0 < len(levels) <= _MAX_LEVELS:
            raise self.wrong("levels", "it has no TCB levels, or too many", str(levels)[:100])
        if not all(isinstance(level, dict) for level in levels):
            raise self.wrong("format", "a TCB level is not an object", str(levels)[:100])
        return levels

    def _date(self, member: str) -> int:
        found = self._value.get(member)
        try:
            when = datetime.datetime.strptime(str(found), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
        except ValueError:
            raise self.wrong("format", f"its {member} is malformed", str(found)[:100], "YYYY-MM-DDThh:mm:ssZ") from None
        return int(when.timestamp())
