"""The quoting enclaves of the simulated platform: a report in, a DCAP quote out, for enclaves and trust domains.

Formats: Intel SGX ECDSA quote library reference, appendix A (version 3); Intel TDX DCAP quoting library API, appendix A
(versions 4 and 5). All have a header, a body, then an ECDSA P-256 signature with the attestation key, the quoting
enclave's own report, the PCK key's signature over that, and the PCK certificate chain.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, PCK_CERTIFICATE_CHAIN
from ensconce.evidence.report import (
    SGX_REPORT_SIZE,
    TD_REPORT_10_SIZE,
    TD_REPORT_15_EX_SIZE,
    TD_REPORT_15_SIZE,
    Attributes,
    SgxReport,
    TdReport,
)
from ensconce.platform.simulated.certificates import Party, label_bytes, point, sign_raw
from ensconce.platform.simulated.machine import Machine

if TYPE_CHECKING:
    from ensconce.platform.simulated.pki import CA, SimulatedVendor

__all__ = ["TD_QUOTING_ENCLAVE", "QuoteRecipe", "QuotingEnclave", "machine_quote", "make_quote"]

_ECDSA_P256 = 2
_TEE_SGX, _TEE_TDX = 0x00, 0x81
_QE_REPORT_CERTIFICATION = 6
_BODY_TYPES = {SGX_REPORT_SIZE: 1, TD_REPORT_10_SIZE: 2, TD_REPORT_15_SIZE: 3, TD_REPORT_15_EX_SIZE: 4}
_QE_ATTRIBUTES = Attributes(Attributes.INIT | Attributes.MODE64BIT | Attributes.PROVISION_KEY, 0x3)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotingEnclave:
    """The enclave that signs quotes, as its own report and the vendor's QE identity describe it.

    Attributes:
        mr_enclave: 32 bytes.
        mr_signer: 32 bytes; not Intel's.
        isv_prod_id: 1, as Intel's for SGX; the one for TDX has 2.
        isv_svn: security version.
        misc_select: MISCSELECT.
        attributes: initialised, 64-bit, with the provisioning key, as Intel's.
    """

    mr_enclave: bytes = label_bytes("quoting enclave", 32)
    mr_signer: bytes = label_bytes("signer of the quoting enclave", 32)
    isv_prod_id: int = 1
    isv_svn: int = 8
    misc_select: int = 0
    attributes: Attributes = _QE_ATTRIBUTES


TD_QUOTING_ENCLAVE = QuotingEnclave(mr_enclave=label_bytes("TD quoting enclave", 32), isv_prod_id=2, isv_svn=4)
"""The one that quotes trust domains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRecipe:
    """How a quote is made; the defaults are a sound quote of this machine.

    Attributes:
        ca: which of the machine's PCK certificates certifies the quoting enclave.
        pck_chain: parties whose certificates the quote carries, PCK first; the first signs the QE report.
        quoting_enclave: what the QE report says; the rightful one for the kind of report when absent.
        qe_report_data: 64 bytes in the QE report; the rightful binding of the attestation key when absent.
        qe_auth_data: bytes bound beside the key; Intel's quoting enclave always gives 32.
        version: of the quote; when absent, 3 for enclaves, and for trust domains 4 as long as that can hold the report.
    """

    ca: CA = "platform"
    pck_chain: Sequence[Party] | None = None
    quoting_enclave: QuotingEnclave | None = None
    qe_report_data: bytes | None = None
    qe_auth_data: bytes = bytes(range(32))
    version: Literal[4, 5] | None = None


def make_quote(vendor: SimulatedVendor, report: SgxReport | TdReport, recipe: QuoteRecipe | None = None) -> bytes:
    """Quote ``report`` for the machine that the vendor's seed yields.

    Args:
        vendor: whose machine.
        report: of an enclave, or of a trust domain.
        recipe: what is to differ from a sound quote.
    """
    recipe = recipe or QuoteRecipe()
    chain = recipe.pck_chain or (vendor.pck(recipe.ca), vendor.pck_ca(recipe.ca), vendor.root)
    machine = replace(Machine.of(vendor), pck_key=chain[0].key, pck_chain="".join(party.pem for party in chain))
    return machine_quote(machine, report, recipe)


def machine_quote(machine: Machine, report: SgxReport | TdReport, recipe: QuoteRecipe | None = None) -> bytes:
    """Quote ``report`` for a machine.

    Args:
        machine: signs; its PCK chain is the one that the quote carries.
        report: of an enclave, or of a trust domain.
        recipe: what is to differ from a sound quote, the PCK chain excepted.
    """
    recipe = recipe or QuoteRecipe()
    tdx = isinstance(report, TdReport)
    enclave = recipe.quoting_enclave or (TD_QUOTING_ENCLAVE if tdx else QuotingEnclave())
    body = report.to_bytes()
    version = recipe.version or (3 if not tdx else 4 if len(body) == TD_REPORT_10_SIZE else 5)
    header = struct.pack(
        "<HHIHH16s20s",
        version,
        _ECDSA_P256,
        _TEE_TDX if tdx else _TEE_SGX,
        # From version 4 on, these two are reserved.
        *((enclave.isv_svn, machine.pce_svn) if version == 3 else (0, 0)),
        INTEL_QE_VENDOR_ID,
        machine.identifier,
    )
    descriptor = struct.pack("<HI", _BODY_TYPES[len(body)], len(body)) if version == 5 else b""
    signed = header + descriptor + body
    certification = _certification(machine, enclave, recipe)
    if version > 3:
        certification = struct.pack("<HI", _QE_REPORT_CERTIFICATION, len(certification)) + certification
    signature_data = sign_raw(machine.attestation_key, signed) + point(machine.attestation_key) + certification
    return signed + struct.pack("<I", len(signature_data)) + signature_data


def _certification(machine: Machine, enclave: QuotingEnclave, recipe: QuoteRecipe) -> bytes:
    """Who vouches for the attestation key: the quoting enclave's report, its signature, and the PCK chain."""
    key = point(machine.attestation_key)
    qe_report = SgxReport(
        cpu_svn=machine.cpu_svn,
        misc_select=enclave.misc_select,
        isv_ext_prod_id=bytes(16),
        attributes=enclave.attributes,
        mr_enclave=enclave.mr_enclave,
        mr_signer=enclave.mr_signer,
        config_id=bytes(64),
        isv_prod_id=enclave.isv_prod_id,
        isv_svn=enclave.isv_svn,
        config_svn=0,
        isv_family_id=bytes(16),
        report_data=recipe.qe_report_data or hashlib.sha256(key + recipe.qe_auth_data).digest() + bytes(32),
    ).to_bytes()
    # Intel's quoting library ends the chain with a NUL, as C strings end.
    certificates = machine.pck_chain.encode() + b"\0"
    return b"".join(
        (
            qe_report,
            sign_raw(machine.pck_key, qe_report),
            struct.pack("<H", len(recipe.qe_auth_data)),
            recipe.qe_auth_data,
            struct.pack("<HI", PCK_CERTIFICATE_CHAIN, len(certificates)),
            certificates,
        )
    )
