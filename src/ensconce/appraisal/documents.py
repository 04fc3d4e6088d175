"""The vendor's two signed JSON documents: TCB info (version 3) and the identity of the quoting enclave (version 2).

Source: Intel PCS API version 4, "Get TCB Info" and "Get Quoting Enclave Identity". Members that are not known are
tolerated, at any depth: Intel has added some without a new version number. A member that is there twice is not.
Signatures are checked by dcap-qvl, after this.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any

from ensconce import strict_json
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import Tee

__all__ = ["Document", "TcbInfo", "read_qe_identity", "read_tcb_info"]

_MAX_LEVELS = 256
_MAX_MODULES = 64
_HEX = re.compile(r"[0-9A-Fa-f]*")

# Which statuses a level may have, in the order of PCS's documentation. Any other, in whichever level, makes a verifier
# guess: dcap-qvl and Intel's library took a quoting enclave that is said to be in another state for one up to date.
_PLATFORM_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_ENCLAVE_STATUSES = ("UpToDate", "OutOfDate", "Revoked")


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


def read_tcb_info(text: str, tee: Tee) -> TcbInfo:
    """Read TCB info and check that it is for this kind of environment, whole, and in order.

    Raises:
        EvidenceError: ``collateral.tcb_info.format``, ``.id``, ``.version``, ``.tcb_type``, ``.levels`` or
            ``.tdx_module``.
    """
    reader = _Reader("tcb_info", text)
    reader.must_be("id", "id", tee.upper())
    reader.must_be("version", "version", 3)
    reader.must_be("tcb_type", "tcbType", 0)
    fmspc, pce_id = reader.hexadecimal("fmspc", 12), reader.hexadecimal("pceId", 4)
    # One row per level: its least security versions, then the PCE's.
    levels = [_tcb_level(reader, level, tee) for level in reader.levels(reader.value, _PLATFORM_STATUSES)]
    for higher, lower in itertools.combinations(levels, 2):
        if all(a <= b for a, b in zip(higher, lower, strict=True)):
            raise reader.wrong("levels", "its TCB levels are not in descending order", "a level that nothing reaches")
    if tee == "tdx":
        _check_modules(reader)
    return TcbInfo(*reader.dates(), reader.number("tcbEvaluationDataNumber"), fmspc, pce_id)


def read_qe_identity(text: str, tee: Tee) -> Document:
    """Read the identity of the quoting enclave and check that it is for this kind of environment, whole, and in order.

    Raises:
        EvidenceError: ``collateral.qe_identity.format``, ``.id``, ``.version`` or ``.levels``.
    """
    reader = _Reader("qe_identity", text)
    reader.must_be("id", "id", "QE" if tee == "sgx" else "TD_QE")
    reader.must_be("version", "version", 2)
    reader.hexadecimal("mrsigner", 64)
    reader.integer(reader.value, "isvprodid", 0xFFFF)
    for member, digits in (("miscselect", 8), ("attributes", 32)):
        value, mask = reader.hexadecimal(member, digits), reader.hexadecimal(f"{member}Mask", digits)
        if int(value, 16) & ~int(mask, 16):
            # Intel's library finds no enclave that fits, dcap-qvl overlooks these bits.
            raise reader.wrong("format", f"its {member} has bits that its mask hides", value, mask)
    reader.isv_levels(reader.value, "levels")
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


def _check_modules(reader: _Reader) -> None:
    """Check what TCB info says of TDX modules: one of version 1.0, and any number of later major versions."""
    modules = [reader.value.get("tdxModule")]
    identities = reader.value.get("tdxModuleIdentities", [])
    if not isinstance(identities, list) or len(identities) > _MAX_MODULES:
        raise reader.wrong("tdx_module", "its tdxModuleIdentities is no list, or too long", str(identities)[:100])
    for module in modules + identities:
        if not isinstance(module, dict):
            raise reader.wrong("tdx_module", "a TDX module is missing, or not an object", str(module)[:100])
        for member, digits in (("mrsigner", 96), ("attributes", 16), ("attributesMask", 16)):
            reader.hexadecimal(member, digits, module, "tdx_module")
    for identity in identities:
        reader.isv_levels(identity, "tdx_module")
    names = [str(identity.get("id")).upper() for identity in identities]
    if len(set(names)) != len(names):
        # dcap-qvl and Intel's library take the first.
        raise reader.wrong("tdx_module", "a TDX module is there twice", ", ".join(names)[:100])


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
        self.value: dict[str, Any] = value

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
        found = self.value.get(member)
        if found != right or type(found) is not type(right):
            raise self.wrong(check, f"its {member} is another", json.dumps(found)[:100], json.dumps(right))

    def hexadecimal(self, member: str, digits: int, holder: dict[str, Any] | None = None, check: str = "format") -> str:
        found = (self.value if holder is None else holder).get(member)
        if not isinstance(found, str) or len(found) != digits or not _HEX.fullmatch(found):
            raise self.wrong(check, f"its {member} is malformed", str(found)[:100], f"{digits} hexadecimal digits")
        return found.upper()

    def number(self, member: str) -> int:
        return self.integer(self.value, member, 0xFFFFFFFF)

    def integer(self, holder: object, member: str, limit: int) -> int:
        found = holder.get(member) if isinstance(holder, dict) else None
        if type(found) is not int or not 0 <= found <= limit:
            raise self.wrong("format", f"a {member} is malformed", str(found)[:100], f"an integer from 0 to {limit}")
        return found

    def dates(self) -> tuple[int, int]:
        issued, next_update = (self._date(self.value, member) for member in ("issueDate", "nextUpdate"))
        if next_update <= issued:
            raise self.wrong("format", "it expires before it is issued", f"{issued} to {next_update}")
        return issued, next_update

    def levels(self, holder: dict[str, Any], statuses: tuple[str, ...], check: str = "levels") -> list[dict[str, Any]]:
        """The levels of a document, or of a part of it, each with a date and one of these statuses."""
        levels = holder.get("tcbLevels")
        if not isinstance(levels, list) or not 0 < len(levels) <= _MAX_LEVELS:
            raise self.wrong(check, "it has no TCB levels, or too many", str(levels)[:100])
        for level in levels:
            if not isinstance(level, dict):
                raise self.wrong("format", "a TCB level is not an object", str(level)[:100])
            if level.get("tcbStatus") not in statuses:
                found = str(level.get("tcbStatus"))[:100]
                raise self.wrong(check, "a TCB level has an unknown status", found, ", ".join(statuses))
            self._date(level, "tcbDate")
            advisories = level.get("advisoryIDs", [])
            if not isinstance(advisories, list) or not all(isinstance(advisory, str) for advisory in advisories):
                raise self.wrong("format", "the advisoryIDs of a TCB level are malformed", str(advisories)[:100])
        return levels

    def isv_levels(self, holder: dict[str, Any], check: str) -> None:
        """Check the levels of an enclave or a TDX module, which have one security version each, in order."""
        svns = [
            self.integer(level.get("tcb"), "isvsvn", 0xFFFF) for level in self.levels(holder, _ENCLAVE_STATUSES, check)
        ]
        if any(higher <= lower for higher, lower in itertools.pairwise(svns)):
            raise self.wrong(check, "its TCB levels are not in descending order", str(svns)[:100])

    def _date(self, holder: dict[str, Any], member: str) -> int:
        found = holder.get(member)
        try:
            when = datetime.datetime.strptime(str(found), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
        except ValueError:
            raise self.wrong("format", f"a {member} is malformed", str(found)[:100], "YYYY-MM-DDThh:mm:ssZ") from None
        return int(when.timestamp())
