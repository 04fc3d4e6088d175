"""Quotes: a report, signed by the quoting enclave, with the certificates that lead to the CPU's vendor.

Sources: Intel SGX ECDSA quote library reference, appendix A (version 3); Intel TDX DCAP quoting library API,
appendix A (versions 4 and 5). Integers are little-endian. Reading says nothing about truth: every field is what a
stranger wrote until :func:`ensconce.appraisal.dcap.verify_quote` has said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ensconce.errors import EvidenceError
from ensconce.evidence.report import (
    SGX_REPORT_SIZE,
    TD_REPORT_10_SIZE,
    TD_REPORT_15_EX_SIZE,
    TD_REPORT_15_SIZE,
    SgxReport,
    TdReport,
)

__all__ = ["INTEL_QE_VENDOR_ID", "MAX_QUOTE_SIZE", "PCK_CERTIFICATE_CHAIN", "Header", "Quote", "Tee", "parse_quote"]

Tee = Literal["sgx", "tdx"]
"""Kind of trusted execution environment."""

MAX_QUOTE_SIZE = 16 * 1024
"""Longest quote that is read, in bytes; real ones take 4,000 to 5,300."""

INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Vendor id of Intel's quoting enclave, which the only known layout of the signature data belongs to."""

PCK_CERTIFICATE_CHAIN = 5
"""Certification data type: the PCK certificate and its issuers, PEM, leaf first."""

_HEADER_SIZE = 48
_ECDSA_P256 = 2
_TEE_SGX, _TEE_TDX = 0x00, 0x81
_QE_REPORT_CERTIFICATION = 6
_CERTIFICATION_TYPES = (1, 2, 3, 4, 5, 7)
_BODIES = {1: SGX_REPORT_SIZE, 2: TD_REPORT_10_SIZE, 3: TD_REPORT_15_SIZE, 4: TD_REPORT_15_EX_SIZE}


@dataclass(frozen=True, slots=True)
class Header:
    """The first 48 bytes of a quote.

    Attributes:
        version: 3 (SGX), 4 or 5 (SGX or TDX).
        attestation_key_type: 2, ECDSA over P-256.
        tee_type: 0 for SGX, 0x81 for TDX.
        qe_svn: security version of the quoting enclave.
        pce_svn: security version of the provisioning certification enclave.
        qe_vendor_id: 16 bytes, the maker of the quoting enclave.
        user_data: 20 bytes; Intel's quoting enclave puts its machine-specific id in the first 16.
    """

    version: int
    attestation_key_type: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    user_data: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote taken apart.

    Attributes:
        header: the header.
        body: what is vouched for.
        signed: the bytes under ``signature``: header, in version 5 the body's descriptor, and body.
        signature: ECDSA P-256 over SHA-256 of ``signed``, r then s, 64 bytes big-endian.
        attestation_key: the P-256 public key of ``signature``, x then y, 64 bytes big-endian.
        qe_report: report of the quoting enclave, 384 bytes; its report data binds key and ``qe_auth_data``.
        qe_report_signature: by the PCK key over ``qe_report``, 64 bytes.
        qe_auth_data: bytes that the quoting enclave added.
        certification_type: 5 for a PCK certificate chain; 1 to 4 and 7 name a PCK in other ways.
        certification_data: for type 5 the chain as PEM, often with a NUL at the end.
    """

    header: Header
    body: SgxReport | TdReport
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification_data: bytes

    @property
    def tee(self) -> Tee:
        """``sgx`` or ``tdx``."""
        return "sgx" if isinstance(self.body, SgxReport) else "tdx"


def parse_quote(data: bytes) -> Quote:
    """Take a quote apart, to the last byte.

    Args:
        data: one quote and nothing else.

    Raises:
        EvidenceError: truncated, lengths that do not add up, bytes left over, or a version, key type or
            certification data type that is not known.
    """
    if len(data) > MAX_QUOTE_SIZE:
        raise EvidenceError(
            "quote.size",
            "the quote is too long",
            found=f"{len(data)} bytes",
            rule=f"at most {MAX_QUOTE_SIZE} bytes",
            remedy="check that this is a quote",
        )
    reader = _Reader(bytes(data), "the quote")
    header = _header(reader)
    body = _body(reader, header)
    signed = reader.data[: reader.at]
    signature_data = _Reader(reader.take(reader.integer(4, "length"), "signature data"), "the signature data")
    reader.finish("quote.trailing_bytes")

    signature = signature_data.take(64, "signature")
    attestation_key = signature_data.take(64, "attestation key")
    certification = signature_data
    if header.version > 3:
        # From version 4 on, the QE report is itself a kind of certification data that wraps the real one.
        kind = signature_data.integer(2, "certification data type")
        if kind != _QE_REPORT_CERTIFICATION:
            raise _unknown(
                "quote.certification_type", "certification data type", str(kind), f"{_QE_REPORT_CERTIFICATION}"
            )
        inner = signature_data.take(signature_data.integer(4, "length"), "QE report certification data")
        signature_data.finish("quote.signature_data")
        certification = _Reader(inner, "the QE report certification data")

    qe_report = SgxReport.from_bytes(certification.take(SGX_REPORT_SIZE, "QE report"))
    qe_report_signature = certification.take(64, "QE report signature")
    qe_auth_data = certification.take(certification.integer(2, "length"), "QE authentication data")
    kind = certification.integer(2, "certification data type")
    if kind not in _CERTIFICATION_TYPES:
        raise _unknown("quote.certification_type", "certification data type", str(kind), "1 to 5, or 7")
    certification_data = certification.take(certification.integer(4, "length"), "certification data")
    certification.finish("quote.signature_data")
    return Quote(
        header=header,
        body=body,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        certification_type=kind,
        certification_data=certification_data,
    )


class _Reader:
    """Takes bytes off the front and refuses to take what is not there."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self._what = what

    def take(self, size: int, field: str) -> bytes:
        left = len(self.data) - self.at
        if size > left:
            raise EvidenceError(
                "quote.truncated",
                f"{self._what} ends within its {field}",
                found=f"{left} bytes left",
                rule=f"{size} bytes",
                remedy="copy the whole quote, in binary; a text-mode copy or a cut-off download does this",
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def integer(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")

    def finish(self, check: str) -> None:
        left = len(self.data) - self.at
        if left:
            raise EvidenceError(
                check,
                f"{self._what} is followed by bytes that belong to nothing",
                found=f"{left} bytes too many",
                rule="lengths add up exactly",
                remedy="cut the file after the quote, or ask for a new quote",
            )


def _header(reader: _Reader) -> Header:
    raw = _Reader(reader.take(_HEADER_SIZE, "header"), "the header")
    header = Header(
        version=raw.integer(2, "version"),
        attestation_key_type=raw.integer(2, "attestation key type"),
        tee_type=raw.integer(4, "TEE type"),
        qe_svn=raw.integer(2, "QE SVN"),
        pce_svn=raw.integer(2, "PCE SVN"),
        qe_vendor_id=raw.take(16, "QE vendor id"),
        user_data=raw.take(20, "user data"),
    )
    if header.version not in (3, 4, 5):
        raise _unknown("quote.version", "version", str(header.version), "3, 4 or 5")
    if header.attestation_key_type != _ECDSA_P256:
        raise _unknown(
            "quote.attestation_key_type",
            "attestation key type",
            str(header.attestation_key_type),
            f"{_ECDSA_P256}, ECDSA over P-256",
        )
    tees = (_TEE_SGX,) if header.version == 3 else (_TEE_SGX, _TEE_TDX)
    if header.tee_type not in tees:
        raise _unknown("quote.tee_type", "TEE type", f"{header.tee_type:#x}", " or ".join(f"{tee:#x}" for tee in tees))
    return header


def _body(reader: _Reader, header: Header) -> SgxReport | TdReport:
    sgx = header.tee_type == _TEE_SGX
    size = SGX_REPORT_SIZE if sgx else TD_REPORT_10_SIZE
    if header.version == 5:
        kind, size = reader.integer(2, "body type"), reader.integer(4, "body size")
        if kind not in _BODIES or (kind == 1) != sgx:
            raise _unknown("quote.body_type", "body type", str(kind), "1" if sgx else "2, 3 or 4")
        if size != _BODIES[kind]:
            raise _unknown("quote.body_size", "body size", str(size), str(_BODIES[kind]))
    data = reader.take(size, "body")
    return SgxReport.from_bytes(data) if sgx else TdReport.from_bytes(data)


def _unknown(check: str, what: str, found: str, rule: str) -> EvidenceError:
    return EvidenceError(
        check,
        f"the quote has an unknown {what}",
        found=found,
        rule=rule,
        remedy="check that this is an Intel DCAP quote of version 3, 4 or 5 with an ECDSA P-256 attestation key",
    )
