"""The policy file, ``policy.yaml``, read strictly. Reference: ``docs/reference/policy.md``."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag

from ensconce.addresses import check_domain
from ensconce.appraisal import strict_yaml
from ensconce.appraisal.policy import (
    MAX_SERIAL,
    Advisories,
    AttributeMasks,
    Identity,
    Owners,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_identity import Form
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_owners import public_key
from ensconce.appraisal.policy_tcb import expect_no_end
from ensconce.appraisal.root import parse_root_name
from ensconce.appraisal.strict_yaml import Document, Location
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.strict import StrictModel

__all__ = ["load_policy", "parse_policy"]

_MAX_IDENTITIES = 1000
_MAX_PLATFORMS = 100_000
_MAX_ADVISORIES = 1000
T = TypeVar("T")

_BITS = re.compile(r"0x[0-9a-fA-F]{1,16}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _hex(size: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) != 2 * size or not all(c in "0123456789abcdefABCDEF" for c in text):
            raise ValueError(f"{2 * size} hexadecimal digits ({size} bytes); these are {len(text)} characters")
        return text

    return AfterValidator(check)


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """A validator out of a function that raises InputError; it must not take what was refused into its message."""

    def validate(text: str) -> str:
        try:
            check(text)
        except InputError as error:
            raise ValueError(error.rule or error.problem) from None
        return text

    return AfterValidator(validate)


def _bits(text: str) -> str:
    if not _BITS.fullmatch(text):
        raise ValueError("0x and 1 to 16 hexadecimal digits")
    return text


def _day(text: str) -> str:
    try:
        good = _DAY.fullmatch(text) is not None and datetime.date.fromisoformat(text) is not None
    except ValueError:
        good = False
    if not good:
        raise ValueError("a day, YYYY-MM-DD")
    return text


Hex16 = Annotated[str, _hex(16)]
Hex32 = Annotated[str, _hex(32)]
Hex48 = Annotated[str, _hex(48)]
U16 = Annotated[int, Field(ge=0, le=0xFFFF)]
Number = Annotated[int, Field(ge=1, le=MAX_SERIAL)]
Root = Annotated[str, _checked(parse_root_name)]


class _MaskEntry(StrictModel):
    mask: Annotated[str, AfterValidator(_bits)]
    value: Annotated[str, AfterValidator(_bits)]


class _AttributesEntry(StrictModel):
    flags: _MaskEntry | None = None
    xfrm: _MaskEntry | None = None
    misc_select: _MaskEntry | None = None


class _TdxEntry(StrictModel):
    mr_td: Hex48
    rtmr0: Hex48 | None = None
    rtmr1: Hex48 | None = None
    rtmr2: Hex48 | None = None
    rtmr3: Hex48 | None = None
    mr_seam: Hex48 | None = None
    mr_config_id: Hex48 | None = None
    mr_owner: Hex48 | None = None
    mr_owner_config: Hex48 | None = None
    td_attributes: _MaskEntry | None = None
    xfam: _MaskEntry | None = None


class _WireV1Entry(StrictModel):
    secret: str
    form: Form


class _IdentityEntry(StrictModel):
    name: str
    mr_enclave: Hex32 | None = None
    mr_signer: Hex32 | None = None
    isv_prod_id: U16 | None = None
    min_isv_svn: U16 | None = None
    attributes: _AttributesEntry | None = None
    tdx: _TdxEntry | None = None
    debug: bool = False
    receives: tuple[str, ...] = ()
    wire_v1: _WireV1Entry | None = None


class _ExceptionEntry(StrictModel):
    status: TcbStatus
    until: Annotated[str, AfterValidator(_day)]


class _AdvisoriesEntry(StrictModel):
    accept: Annotated[tuple[str, ...], Field(max_length=_MAX_ADVISORIES)] | None = None
    refuse: Annotated[tuple[str, ...], Field(max_length=_MAX_ADVISORIES)] = ()


class _OwnersEntry(StrictModel):
    required: Annotated[int, Field(ge=1)]
    keys: tuple[Annotated[str, _checked(public_key)], ...]


# The tags cannot be names of fields: pydantic puts them into the locations of what is wrong.
_StatusEntry = Annotated[
    Annotated[TcbStatus, Tag("a status")] | Annotated[_ExceptionEntry, Tag("an exception")],
    Discriminator(lambda value: "an exception" if isinstance(value, dict) else "a status"),
]


class _PolicyFile(StrictModel):
    version: Literal[1]
    serial: Number = 1
    service: Annotated[str, _checked(check_domain)] | None = None
    owners: _OwnersEntry | None = None
    roots: tuple[Root, ...]
    tcb_statuses: tuple[_StatusEntry, ...]
    advisories: _AdvisoriesEntry | None = None
    min_tcb_evaluation_data_number: Number | None = None
    platforms: Annotated[tuple[Hex16, ...], Field(max_length=_MAX_PLATFORMS)] | None = None
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
    _refuse_twice(document, file)
    at = functools.partial(_located, document)
    identities = tuple(_identity(document, ("identities", n), entry) for n, entry in enumerate(file.identities))
    statuses = tuple(
        at(("tcb_statuses", n), functools.partial(_status, each)) for n, each in enumerate(file.tcb_statuses)
    )
    owners, advisories = file.owners, file.advisories
    fields: dict[str, Any] = {
        "owners": owners and at(("owners",), lambda: Owners(required=owners.required, keys=owners.keys)),
        "advisories": advisories
        and at(("advisories",), lambda: Advisories(accept=advisories.accept, refuse=advisories.refuse)),
        "platforms": None if file.platforms is None else tuple(map(bytes.fromhex, file.platforms)),
    }
    return at(
        (),
        lambda: Policy(
            serial=file.serial,
            service=file.service,
            roots=file.roots,
            tcb_statuses=statuses,
            min_tcb_evaluation_data_number=file.min_tcb_evaluation_data_number,
            identities=identities,
            **fields,
        ),
    )


def _status(entry: TcbStatus | _ExceptionEntry) -> TcbStatus | StatusUntil:
    if isinstance(entry, TcbStatus):
        expect_no_end(entry)
        return entry
    return StatusUntil(entry.status, datetime.date.fromisoformat(entry.until))


def _identity(document: Document, location: Location, entry: _IdentityEntry) -> Identity:
    fields: dict[str, Any] = {name: getattr(entry, name) for name in ("name", "isv_prod_id", "min_isv_svn", "debug")}
    for name in ("mr_enclave", "mr_signer"):
        digits: str | None = getattr(entry, name)
        fields[name] = digits if digits is None else bytes.fromhex(digits)
    if entry.attributes is not None:
        masks = _members(document, (*location, "attributes"), entry.attributes)
        fields["attributes"] = _located(document, (*location, "attributes"), lambda: AttributeMasks(**masks))
    if entry.tdx is not None:
        members = _members(document, (*location, "tdx"), entry.tdx)
        fields["tdx"] = _located(document, (*location, "tdx"), lambda: TrustDomain(**members))
    if entry.wire_v1 is not None:
        opted = entry.wire_v1
        fields["wire_v1"] = _located(
            document, (*location, "wire_v1"), lambda: WireV1(secret=opted.secret, form=opted.form)
        )
    return _located(document, location, lambda: Identity(**fields, receives=entry.receives))


def _members(document: Document, location: Location, entry: _AttributesEntry | _TdxEntry) -> dict[str, Any]:
    """The members of an entry as bytes and masks."""
    members: dict[str, Any] = {}
    for name in type(entry).model_fields:
        value: str | _MaskEntry | None = getattr(entry, name)
        if isinstance(value, str):
            members[name] = bytes.fromhex(value)
        elif value is not None:
            mask, bits = int(value.mask, 16), int(value.value, 16)
            members[name] = _located(document, (*location, name), functools.partial(Mask, mask, bits))
    return members


def _refuse_twice(document: Document, file: _PolicyFile) -> None:
    """Refuse duplicates here, where their line is known; the policy itself would refuse them without."""
    entries = list(enumerate(file.identities))
    statuses = (each if isinstance(each, TcbStatus) else each.status for each in file.tcb_statuses)
    places: list[tuple[str, Location, str]] = [
        *(("root", ("roots", i), root) for i, root in enumerate(file.roots)),
        *(("status", ("tcb_statuses", i), status.value) for i, status in enumerate(statuses)),
        *(("key", ("owners", "keys", i), key) for i, key in enumerate(file.owners.keys if file.owners else ())),
        *(("platform", ("platforms", i), ppid.lower()) for i, ppid in enumerate(file.platforms or ())),
        *(("name", ("identities", i, "name"), entry.name) for i, entry in entries),
        *(
            ("measurement", ("identities", i, "mr_enclave"), entry.mr_enclave.lower())
            for i, entry in entries
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
