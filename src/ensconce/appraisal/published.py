"""What a publisher stands by: enclaves by their measurements, until a date; and the judgement by it.

These are values: that the publisher signed them is for :mod:`ensconce.publication` to find out. Reference:
``docs/reference/published.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from ensconce.addresses import check_domain
from ensconce.appraisal.policy import MAX_SERIAL, Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.strict import StrictModel
from ensconce.times import unix_of, utc_text
from ensconce.trail import exhibit, held

__all__ = [
    "Image",
    "Measurements",
    "PolicyReference",
    "Published",
    "PublishedEnclave",
    "Source",
    "Withdrawn",
    "check_end",
    "judge",
]

Published = Callable[[], "Measurements"]
"""Gives what is published now, for those who judge by it again and again."""

_MAX_ENCLAVES = 64
_MAX_IMAGES = 32


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("not printable, or with a blank at an end")
    return text


def _domain(text: str) -> str:
    with contextlib.suppress(InputError):
        return check_domain(text)
    raise ValueError("no domain")


def _moment(text: str) -> str:
    unix_of(text)
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Moment = Annotated[str, AfterValidator(_moment)]
_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
_Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class Image(StrictModel):
    """A container image.

    Attributes:
        name: its repository, such as ``registry.example/ensconce/server``.
        sha256: digest of its manifest, lower-case hexadecimal.
    """

    name: _Line
    sha256: Sha256


class Source(StrictModel):
    """What an enclave was built from.

    Attributes:
        commit: the Git commit, SHA-1 or SHA-256, lower-case hexadecimal.
        uri: where it is, if the publisher says so.
    """

    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
    uri: _Line | None = None

    def __str__(self) -> str:
        return f"commit {self.commit}" if self.uri is None else f"commit {self.commit} of {self.uri}"


class PolicyReference(StrictModel):
    """The owner's policy in force when a list was signed.

    Attributes:
        serial: its number.
        sha256: as :attr:`ensconce.appraisal.policy.Policy.sha256` has it.
    """

    serial: Annotated[int, Field(ge=1, le=MAX_SERIAL)]
    sha256: Sha256


class PublishedEnclave(StrictModel):
    """An enclave that the publisher stands by. All fields of the measurement must fit.

    Attributes:
        name: for people; each once.
        mr_enclave: MRENCLAVE, lower-case hexadecimal; each once.
        mr_signer: MRSIGNER, likewise.
        isv_prod_id: ISVPRODID.
        isv_svn: ISVSVN.
        sigstruct: SHA-256 of its SIGSTRUCT, the file ``server.sig``.
        published: when it was first in a list, RFC 3339 UTC.
        images: that bring it.
        source: what it was built from.
    """

    name: _Name
    mr_enclave: Sha256
    mr_signer: Sha256
    isv_prod_id: Annotated[int, Field(ge=0, le=0xFFFF)]
    isv_svn: Annotated[int, Field(ge=0, le=0xFFFF)]
    sigstruct: Sha256
    published: _Moment
    images: Annotated[tuple[Image, ...], Field(max_length=_MAX_IMAGES)] = ()
    source: Source | None = None


class Withdrawn(StrictModel):
    """An enclave that the publisher no longer stands by. Not to be in the list is enough; this says why.

    Attributes:
        mr_enclave: MRENCLAVE, lower-case hexadecimal.
        reason: in words.
        withdrawn: when, RFC 3339 UTC.
    """

    mr_enclave: Sha256
    reason: _Line
    withdrawn: _Moment


class Measurements(StrictModel):
    """One signed list: it stands for everything that its publisher has published and not withdrawn.

    Attributes:
        service: TLS name of the service that it is about.
        serial: of this list; the next one has a higher one.
        created: when it was signed, RFC 3339 UTC.
        expires: when it ceases to be accepted, RFC 3339 UTC.
        policy: the owner's policy in force.
        log_key: whose signatures the log has, ``ed25519:`` and the key; for those who go by another signature than this
            key's.
        enclaves: at most 64; none where all were withdrawn.
        withdrawn: the last 64.
    """

    service: Annotated[str, AfterValidator(_domain)]
    serial: Annotated[int, Field(ge=1, le=MAX_SERIAL)]
    created: _Moment
    expires: _Moment
    policy: PolicyReference | None = None
    log_key: Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")] | None = None
    enclaves: Annotated[tuple[PublishedEnclave, ...], Field(max_length=_MAX_ENCLAVES)]
    withdrawn: Annotated[tuple[Withdrawn, ...], Field(max_length=_MAX_ENCLAVES)] = ()

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if unix_of(self.expires) <= unix_of(self.created):
            raise ValueError("it ends before it begins")
        measured = [each.mr_enclave for each in self.enclaves] + [each.mr_enclave for each in self.withdrawn]
        names = [each.name for each in self.enclaves]
        if len(set(measured)) < len(measured) or len(set(names)) < len(names):
            raise ValueError("an enclave is there twice")
        return self

    def to_policy(self, roots: tuple[str, ...] = ("intel",)) -> Policy:
        """A policy for exactly these enclaves, on platforms that are UpToDate.

        Args:
            roots: names of roots; the publisher has no say in them.

        Raises:
            RefusedError: ``published.none``: nothing is published.
        """
        if not self.enclaves:
            raise RefusedError(
                "published.none",
                "the publisher stands by no enclave any more",
                found=f"an empty list, serial {self.serial}",
                remedy="ask the publisher what to use instead",
            )
        return Policy(
            service=self.service,
            roots=roots,
            tcb_statuses=(TcbStatus.UP_TO_DATE,),
            identities=tuple(_identity(each) for each in self.enclaves),
        )


def judge(list_: Measurements, report: SgxReport | TdReport, now: int) -> PublishedEnclave:
    """Which of the published enclaves wrote a report, at this time.

    Args:
        list_: whose signature holds.
        report: the body of a verified quote.
        now: seconds since 1970.

    Raises:
        RefusedError: ``published.expired``, ``published.withdrawn``, ``published.tee``; or the field that does not fit,
            such as ``published.mr_enclave``.
    """
    check_end(list_, now)
    held(
        "published.expired",
        "end of the list",
        found=utc_text(now),
        rule=f"before {list_.expires}",
        end=unix_of(list_.expires),
    )
    if not isinstance(report, SgxReport):
        raise _refusal("tee", "only enclaves are published, and this is a trust domain", "tdx", "sgx")
    found = report.mr_enclave.hex()
    for gone in list_.withdrawn:
        if gone.mr_enclave == found:
            raise RefusedError(
                "published.withdrawn",
                "the publisher has withdrawn this enclave",
                found=found,
                rule=f"withdrawn {gone.withdrawn}: {gone.reason}",
                remedy="have the service replaced by an enclave that the publisher stands by",
            )
    enclave = next((each for each in list_.enclaves if each.mr_enclave == found), None)
    if enclave is None:
        count = f"one of {len(list_.enclaves)} in the list of {list_.created}, serial {list_.serial}"
        raise _refusal("mr_enclave", "the publisher has not published this enclave", found, count)
    for field, label, value, rule in _compared(enclave, report):
        if value != rule:
            raise _refusal(field, f"{label} is not what the publisher has published", value, rule)
        held(f"published.{field}", label, found=value, rule=rule)
    exhibit("published_enclave", enclave)
    return enclave


def check_end(list_: Measurements, now: int) -> None:
    """Refuse a list that has come to its end.

    Raises:
        RefusedError: ``published.expired``.
    """
    if now >= unix_of(list_.expires):
        raise RefusedError(
            "published.expired",
            "the published list has come to its end",
            found=utc_text(now),
            rule=f"before {list_.expires}",
            remedy="get the newest; if there is none, its publisher stands by nothing now, or somebody keeps it back",
        )


def _compared(enclave: PublishedEnclave, report: SgxReport) -> Iterator[tuple[str, str, str, str]]:
    yield "mr_enclave", "MRENCLAVE", report.mr_enclave.hex(), enclave.mr_enclave
    yield "mr_signer", "MRSIGNER", report.mr_signer.hex(), enclave.mr_signer
    yield "isv_prod_id", "ISVPRODID", str(report.isv_prod_id), str(enclave.isv_prod_id)
    yield "isv_svn", "ISVSVN", str(report.isv_svn), str(enclave.isv_svn)


def _identity(enclave: PublishedEnclave) -> Identity:
    return Identity(
        name=enclave.name,
        mr_enclave=bytes.fromhex(enclave.mr_enclave),
        mr_signer=bytes.fromhex(enclave.mr_signer),
        isv_prod_id=enclave.isv_prod_id,
        min_isv_svn=enclave.isv_svn,
    )


def _refusal(field: str, problem: str, found: str, rule: str) -> RefusedError:
    return RefusedError(
        f"published.{field}",
        problem,
        found=found,
        rule=rule,
        remedy="get the newest list; if it names no such enclave, something else runs than what was published",
    )
