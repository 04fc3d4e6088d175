"""Collateral: the vendor's signed statements that a quote is judged by, and what kind of platform they are for.

The same nine members as dcap-qvl's JSON. Reading checks form and bounds; what the statements say, and who signed them,
is checked each time a quote is verified.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ensconce import strict_json
from ensconce.appraisal.pck import PckCa, read_pck
from ensconce.errors import InputError
from ensconce.evidence.quote import Quote, Tee

__all__ = ["MAX_COLLATERAL_SIZE", "Collateral", "PlatformKind"]

_FMSPC = re.compile(r"[0-9A-Fa-f]{12}")

MAX_COLLATERAL_SIZE = 4 * 1024 * 1024
"""Longest collateral file that is read, in bytes; real ones take 10,000 to 40,000, most of it revocation lists."""

_TEXT = (
    "pck_crl_issuer_chain",
    "tcb_info_issuer_chain",
    "tcb_info",
    "qe_identity_issuer_chain",
    "qe_identity",
)
_HEX = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_IGNORED = "pck_certificate_chain"


@dataclass(frozen=True, slots=True)
class PlatformKind:
    """What one set of collateral is for: all machines of one kind whose PCK certificates one authority issued.

    Attributes:
        tee: what the quotes are of; trust domains and enclaves of one machine are judged by different documents.
        fmspc: kind of machine (family, model, stepping, platform, custom SKU), 12 hexadecimal digits, kept in upper
            case.
        ca: which of the vendor's two authorities issued the PCK certificates.

    Raises:
        InputError: ``fmspc`` is malformed.
    """

    tee: Tee
    fmspc: str
    ca: PckCa

    def __post_init__(self) -> None:
        if not _FMSPC.fullmatch(self.fmspc):
            raise InputError(
                "pccs.fmspc",
                "this is no FMSPC",
                found=self.fmspc[:40],
                rule="12 hexadecimal digits",
                remedy="take the fmspc that `ensconce quote show` prints",
            )
        object.__setattr__(self, "fmspc", self.fmspc.upper())

    def __str__(self) -> str:
        return f"{self.tee}-{self.fmspc}-{self.ca}"

    @classmethod
    def of(cls, quote: Quote) -> PlatformKind:
        """The kind of platform that a quote says it is from, which nobody has verified yet.

        Raises:
            EvidenceError: the quote does not say.
        """
        pck = read_pck(quote)
        return cls(quote.tee, pck.fmspc, pck.ca)


@dataclass(frozen=True, slots=True)
class Collateral:
    """Everything that verification needs beside the quote and the root.

    Attributes:
        pck_crl_issuer_chain: PEM, issuer of ``pck_crl`` first, then the root.
        root_ca_crl: revocation list of the root, DER.
        pck_crl: revocation list of the PCK certificate authority, DER.
        tcb_info_issuer_chain: PEM, signer of ``tcb_info`` first, then the root.
        tcb_info: TCB info, JSON, the exact text that was signed.
        tcb_info_signature: ECDSA P-256, r then s, 64 bytes.
        qe_identity_issuer_chain: PEM, signer of ``qe_identity`` first, then the root.
        qe_identity: identity of the quoting enclave, JSON, the exact text that was signed.
        qe_identity_signature: ECDSA P-256, r then s, 64 bytes.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    @classmethod
    def from_json(cls, data: bytes) -> Collateral:
        """Read dcap-qvl's JSON: texts as they are, binary members in hexadecimal.

        A tenth member that dcap-qvl writes, ``pck_certificate_chain``, is dropped: the chain in the quote counts, and
        one in the collateral would silently take its place.

        Raises:
            InputError: not such JSON, a member missing, unknown, there twice or of another type, or too long.
        """
        if len(data) > MAX_COLLATERAL_SIZE:
            raise _malformed("it is too long", f"{len(data)} bytes")
        try:
            return cls.from_object(strict_json.loads(data))
        except ValueError as error:
            raise _malformed("it is not JSON", str(error)[:200]) from error

    @classmethod
    def from_object(cls, parsed: object) -> Collateral:
        """What :meth:`from_json` reads, after JSON has been parsed, strictly.

        Raises:
            InputError: as :meth:`from_json`.
        """
        if not isinstance(parsed, dict):
            raise _malformed("it is not a JSON object", type(parsed).__name__)
        value = {name: member for name, member in parsed.items() if name != _IGNORED}
        if set(value) != {*_TEXT, *_HEX}:
            missing, unknown = sorted({*_TEXT, *_HEX} - set(value)), sorted(set(value) - {*_TEXT, *_HEX})
            raise _malformed(
                "its members are others", f"missing: {', '.join(missing)}; unknown: {', '.join(unknown)}"[:300]
            )
        for name, member in value.items():
            if not isinstance(member, str):
                raise _malformed(f"{name} is not text", type(member).__name__)
        try:
            members: dict[str, Any] = value | {name: bytes.fromhex(value[name]) for name in _HEX}
        except ValueError as error:
            raise _malformed("a binary member is not hexadecimal", str(error)) from error
        return cls(**members)

    def to_json(self) -> str:
        """dcap-qvl's JSON, the inverse of :meth:`from_json`."""
        return json.dumps(self.to_object(), indent=2)

    def to_object(self) -> dict[str, str]:
        """The members of :meth:`to_json`."""
        texts: dict[str, str] = {name: getattr(self, name) for name in _TEXT}
        return texts | {name: getattr(self, name).hex() for name in _HEX}


def _malformed(problem: str, found: str) -> InputError:
    return InputError(
        "collateral.format",
        f"the collateral cannot be read: {problem}",
        found=found,
        rule=f"a JSON object with the members {', '.join(sorted((*_TEXT, *_HEX)))}",
        remedy="fetch it anew, or check that this is the collateral file and not, say, a TCB info alone",
    )
