"""Identities: the code that a policy accepts, and what it may receive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ensconce.appraisal.policy_check import Check, expect_size, invalid, refuse_twice
from ensconce.appraisal.policy_sgx import AttributeMasks
from ensconce.appraisal.policy_tdx import TrustDomain
from ensconce.errors import InputError
from ensconce.evidence.quote import Tee
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.servables import MODEL_NAME, receivable

__all__ = ["Form", "Identity", "WireV1"]

_MAX_NAME = 100
_SECRET = f"secret/{MODEL_NAME}"
_RECEIVABLE = re.compile(f"{receivable(MODEL_NAME)}|{_SECRET}")
_KEY_ID = re.compile(f"{receivable(MODEL_NAME)}/[1-9][0-9]{{0,9}}|{_SECRET}")
_SGX_FIELDS = ("mr_enclave", "mr_signer", "isv_prod_id", "min_isv_svn", "attributes", "wire_v1")

Form = Literal["raw", "hex", "text"]
"""How a secret is written into the answer of Gramine's protocol."""


@dataclass(frozen=True, kw_only=True)
class WireV1:
    """Leave to ask over Gramine's own protocol, which proves no freshness: see ``docs/reference/policy.md``.

    Attributes:
        secret: id of the one key that it is given, ``model/<name>/<version>`` or ``secret/<name>``.
        form: how it is written into the answer: its ``raw`` bytes, as ``hex`` digits, or as ``text``.

    Raises:
        InputError: one of them is not such a value.
    """

    secret: str
    form: Form

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.secret):
            raise invalid("wire_v1.secret", self.secret, "model/<name>/<version> or secret/<name>")
        if self.form not in get_args(Form):
            raise invalid("wire_v1.form", self.form, " or ".join(get_args(Form)))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Code that is accepted, and what it may receive.

    An SGX enclave by its measurement, or by its signer with product id and lowest security version; or a TDX trust
    domain. Giving more narrows it.

    Attributes:
        name: for people and logs, 1 to 100 printable characters.
        mr_enclave: MRENCLAVE, 32 bytes.
        mr_signer: MRSIGNER, SHA-256 of the signer's modulus, 32 bytes.
        isv_prod_id: ISVPRODID, 16 bits.
        min_isv_svn: lowest ISVSVN, 16 bits.
        attributes: bits that the enclave must have or lack, beside those that none may lack or have.
        tdx: it is a trust domain; then none of the above is given.
        debug: accept it as a debug enclave too, whose memory the host can read and write.
        receives: what it may be given, each ``model/<name>``, which means every live version of that model, or
            ``secret/<name>``.
        wire_v1: leave to ask over Gramine's own protocol.

    Raises:
        InputError: a field is out of its bounds, or the fields name no code.
    """

    name: str
    mr_enclave: bytes | None = None
    mr_signer: bytes | None = None
    isv_prod_id: int | None = None
    min_isv_svn: int | None = None
    attributes: AttributeMasks | None = None
    tdx: TrustDomain | None = None
    debug: bool = False
    receives: tuple[str, ...] = ()
    wire_v1: WireV1 | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _MAX_NAME or not self.name.isprintable() or self.name != self.name.strip():
            raise invalid("name", self.name, "1 to 100 printable characters, no blank at either end")
        expect_size(f"{self.name}: mr_enclave", self.mr_enclave, 32)
        expect_size(f"{self.name}: mr_signer", self.mr_signer, 32)
        for field, number in (("isv_prod_id", self.isv_prod_id), ("min_isv_svn", self.min_isv_svn)):
            if number is not None and not 0 <= number <= 0xFFFF:
                raise invalid(f"{self.name}: {field}", str(number), "0 to 65535")
        self._names_code()
        for item in self.receives:
            if not _RECEIVABLE.fullmatch(item):
                raise invalid(f"{self.name}: receives", item, "model/<name>, without a version, or secret/<name>")
        refuse_twice(self.receives, f"{self.name}: receives")
        if self.wire_v1 is not None and not self.may_receive(self.wire_v1.secret):
            raise InputError(
                "policy.wire_v1",
                f"identity {self.name!r} would get over Gramine's protocol what it may not receive",
                found=self.wire_v1.secret,
                rule=f"receives: [{', '.join(self.receives)}]",
                remedy="name it under receives: as well",
            )

    @property
    def tee(self) -> Tee:
        """Which kind of environment it is about."""
        return "sgx" if self.tdx is None else "tdx"

    def may_receive(self, key_id: str) -> bool:
        """Whether a key of this id, ``model/<name>/<version>`` or ``secret/<name>``, may be given to it."""
        return (key_id if key_id.startswith("secret/") else key_id.rpartition("/")[0]) in self.receives

    def checks(self, report: SgxReport | TdReport) -> Iterator[Check]:
        """One condition for each field that it gives; none about another kind of environment, or about debug."""
        if isinstance(report, SgxReport) and self.tdx is None:
            yield from self._sgx_checks(report)
        elif isinstance(report, TdReport) and self.tdx is not None:
            yield from self.tdx.checks(report)

    def to_json_object(self) -> dict[str, Any]:
        """The identity as the policy file has it, fields in a fixed order, absent ones left out."""
        value: dict[str, Any] = {"name": self.name}
        if self.mr_enclave is not None:
            value["mr_enclave"] = self.mr_enclave.hex()
        if self.mr_signer is not None:
            value["mr_signer"] = self.mr_signer.hex()
        if self.isv_prod_id is not None:
            value["isv_prod_id"] = self.isv_prod_id
        if self.min_isv_svn is not None:
            value["min_isv_svn"] = self.min_isv_svn
        if self.attributes is not None:
            value["attributes"] = self.attributes.to_json_object()
        if self.tdx is not None:
            value["tdx"] = self.tdx.to_json_object()
        value |= {"debug": self.debug, "receives": list(self.receives)}
        if self.wire_v1 is not None:
            value["wire_v1"] = {"secret": self.wire_v1.secret, "form": self.wire_v1.form}
        return value

    def _names_code(self) -> None:
        if self.tdx is not None:
            given = [field for field in _SGX_FIELDS if getattr(self, field) is not None]
            if given:
                raise InputError(
                    "policy.identity",
                    f"identity {self.name!r} is a trust domain and an enclave at once",
                    found=", ".join(("tdx", *given)),
                    rule="tdx, or the fields of an SGX enclave",
                    remedy="make two identities of it",
                )
        elif self.mr_enclave is None and None in (self.mr_signer, self.isv_prod_id, self.min_isv_svn):
            given = [f for f in ("mr_signer", "isv_prod_id", "min_isv_svn") if getattr(self, f) is not None]
            raise InputError(
                "policy.identity",
                f"identity {self.name!r} does not say which code it is",
                found=", ".join(given) or "no measurement and no signer",
                rule="mr_enclave, or mr_signer with isv_prod_id and min_isv_svn, or tdx",
                remedy="add the measurement that `ensconce enclave` printed",
            )

    def _sgx_checks(self, report: SgxReport) -> Iterator[Check]:
        expected: list[tuple[str, bool, str, str]] = []
        if self.mr_signer is not None:
            same = report.mr_signer == self.mr_signer
            expected.append(("mr_signer", same, report.mr_signer.hex(), self.mr_signer.hex()))
        if self.isv_prod_id is not None:
            same = report.isv_prod_id == self.isv_prod_id
            expected.append(("isv_prod_id", same, str(report.isv_prod_id), str(self.isv_prod_id)))
        if self.min_isv_svn is not None:
            enough = report.isv_svn >= self.min_isv_svn
            expected.append(("min_isv_svn", enough, str(report.isv_svn), str(self.min_isv_svn)))
        if self.mr_enclave is not None:
            same = report.mr_enclave == self.mr_enclave
            expected.append(("mr_enclave", same, report.mr_enclave.hex(), self.mr_enclave.hex()))
        for field, passed, found, rule in expected:
            yield Check(
                field=field,
                passed=passed,
                found=found,
                rule=f"{field}: {rule}",
                problem="the policy names no such enclave",
                remedy="if this is the code that you mean, add its measurement to the policy; otherwise something "
                "changed it",
            )
        if self.attributes is not None:
            yield from self.attributes.checks(report)
