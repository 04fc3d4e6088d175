"""The policy file, ``policy.yaml``: read strictly, written with comments. Reference: ``docs/reference/policy.md``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from ensconce.appraisal import strict_yaml
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.root import parse_root_name
from ensconce.appraisal.strict_yaml import Document, Location
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.strict import StrictModel

__all__ = ["dump_policy", "load_policy", "parse_policy"]

_MAX_IDENTITIES = 1000
T = TypeVar("T")


def _hex32(text: str) -> str:
    if len(text) != 64 or not all(c in "0123456789abcdefABCDEF" for c in text):
        raise ValueError(f"64 hexadecimal digits (32 bytes); these are {len(text)} characters")
    return text


def _root(text: str) -> str:
    try:
        return parse_root_name(text)
    except InputError as error:
        raise ValueError(error.rule or error.problem) from None


Hex32 = Annotated[str, AfterValidator(_hex32)]
U16 = Annotated[int, Field(ge=0, le=0xFFFF)]


class _IdentityEntry(StrictModel):
    name: str
    mr_enclave: Hex32 | None = None
    mr_signer: Hex32 | None = None
    isv_prod_id: U16 | None = None
    min_isv_svn: U16 | None = None
    debug: bool = False
    receives: tuple[str, ...] = ()


class _PolicyFile(StrictModel):
    version: Literal[1]
    roots: tuple[Annotated[str, AfterValidator(_root)], ...]
    tcb_statuses: tuple[TcbStatus, ...]
    identities: Annotated[tuple[_IdentityEntry, ...], Field(max_length=_MAX_IDENTITIES)]


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        InputError: it cannot be read, or is not a policy; says which line, which field, and what would be valid.
    """
    return parse_policy(read_bounded(path, strict_yaml.MAX_BYTES), str(path))


def parse_policy(data: bytes, name: str) -> Policy:
    """The policy in these bytes.

    Args:
        data: YAML, UTF-8.
        name: what messages call the file.

    Raises:
        InputError: as :func:`load_policy`.
    """
    document = strict_yaml.parse(data, name)
    file = document.validate(_PolicyFile)
    identities = tuple(
        _located(document, ("identities", index), functools.partial(_identity, entry))
        for index, entry in enumerate(file.identities)
    )
    _refuse_twice(document, file)
    return _located(
        document,
        (),
        lambda: Policy(roots=file.roots, tcb_statuses=file.tcb_statuses, identities=identities),
    )


def dump_policy(policy: Policy) -> str:
    """The policy as the text of a policy file, with comments that explain it."""
    lines = [
        "# Who may receive keys: evidence that no line below names is refused. Unknown fields are errors.",
        "# Reference: docs/reference/policy.md",
        "version: 1",
        "",
        "# Roots that evidence may hang from: intel, or simulated:<SHA-256 of the root certificate>.",
        *(
            ["# A simulated root protects nothing: whoever has that machine can read every enclave on it."]
            if any(root != "intel" for root in policy.roots)
            else []
        ),
        "roots:",
        *(f"  - {root}" for root in policy.roots),
        "",
        "# States of the platform that are accepted, in Intel's words; anything but UpToDate is an exception.",
        "tcb_statuses:",
        *(f"  - {status}" for status in policy.tcb_statuses),
        "",
        "# Code that is accepted, by measurement (mr_enclave), or by signer (mr_signer, isv_prod_id, min_isv_svn),",
        "# and the models whose keys it receives. The first identity that fits counts.",
        "identities:",
    ]
    for identity in policy.identities:
        prefix = "  - "
        for field, value in identity.to_json_object().items():
            if field == "receives":
                break
            comment = "  # the host can read this enclave's memory" if field == "debug" and value else ""
            # Strings in quotes: a measurement may hold no letter, a name may hold anything.
            lines.append(f"{prefix}{field}: {json.dumps(value, ensure_ascii=False)}{comment}")
            prefix = "    "
        lines.append("    receives:" if identity.receives else "    receives: []")
        lines += [f"      - {item}" for item in identity.receives]
    return "\n".join(lines) + "\n"


def _identity(entry: _IdentityEntry) -> Identity:
    return Identity(
        name=entry.name,
        mr_enclave=bytes.fromhex(entry.mr_enclave) if entry.mr_enclave is not None else None,
        mr_signer=bytes.fromhex(entry.mr_signer) if entry.mr_signer is not None else None,
        isv_prod_id=entry.isv_prod_id,
        min_isv_svn=entry.min_isv_svn,
        debug=entry.debug,
        receives=entry.receives,
    )


def _refuse_twice(document: Document, file: _PolicyFile) -> None:
    """Refuse duplicates here, where their line is known; the policy itself would refuse them without."""
    places: list[tuple[str, Location, str]] = [
        *(("root", ("roots", i), root) for i, root in enumerate(file.roots)),
        *(("status", ("tcb_statuses", i), status.value) for i, status in enumerate(file.tcb_statuses)),
        *(("name", ("identities", i, "name"), entry.name) for i, entry in enumerate(file.identities)),
        *(
            ("measurement", ("identities", i, "mr_enclave"), entry.mr_enclave.lower())
            for i, entry in enumerate(file.identities)
            if entry.mr_enclave is not None
        ),
    ]
    first: dict[tuple[str, str], Location] = {}
    for kind, location, value in places:
        earlier = first.setdefault((kind, value), location)
        if earlier != location:
            raise document.error(
                location,
                "policy.duplicate",
                f"the same {kind} as on line {document.line(earlier)}",
                found=value,
                remedy="keep one of the two",
            )


def _located(document: Document, location: Location, make: Callable[[], T]) -> T:
    """Make something of checked fields; add the place to what is wrong with their meaning."""
    try:
        return make()
    except InputError as error:
        field = (*location, error.check.removeprefix("policy."))
        raise document.error(field if field in document.lines else location, **error.fields()) from None
