"""The quoting enclave of the simulated platform: a report in, a DCAP quote version 3 out.

Format: Intel SGX ECDSA quote library reference, appendix A: header, report body, then an ECDSA P-256 signature with the
attestation key, the quoting enclave's own report, the PCK key's signature over that, and the PCK certificate chain.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, PCK_CERTIFICATE_CHAIN
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.certificates import Party, label_bytes, point, sign_raw

if TYPE_CHECKING:
    from ensconce.platform.simulated.pki import CA, SimulatedVendor

__all__ = ["QuoteRecipe", "QuotingEnclave", "make_quote"]

_VERSION = 3
_ECDSA_P256 = 2
_QE_ATTRIBUTES = Attributes(Attributes.INIT | Attributes.MODE64BIT | Attributes.PROVISION_KEY, 0x3)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotingEnclave:
    """The enclave that signs quotes, as its own report and the vendor's QE identity describe it.

    Attributes:
        mr_enclave: 32 bytes.
        mr_signer: 32 bytes; not Intel's.
        isv_prod_id: 1, as Intel's.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRecipe:
    """How a quote is made; the defaults are a sound quote of this machine.

    Attributes:
        ca: which of the machine's PCK certificates certifies the quoting enclave.
        pck_chain: parties whose certificates the quote carries, PCK first; the first signs the QE report.
        quoting_enclave: what the QE report says.
        qe_report_data: 64 bytes in the QE report; the rightful binding of the attestation key when absent.
        qe_auth_data: bytes bound beside the key; Intel's quoting enclave always gives 32.
    """

    ca: CA = "platform"
    pck_chain: Sequence[Party] | None = None
    quoting_enclave: QuotingEnclave = QuotingEnclave()
    qe_report_data: bytes | None = None
    qe_auth_data: bytes = bytes(range(32))


def make_quote(vendor: SimulatedVendor, report: SgxReport, recipe: QuoteRecipe | None = None) -> bytes:
    """Quote ``report`` for this machine.

    Args:
        vendor: whose machine.
        report: the enclave's report.
        recipe: what is to differ from a sound quote.
    """
    recipe = recipe or QuoteRecipe()
    chain = recipe.pck_chain or (vendor.pck(recipe.ca), vendor.pck_ca(recipe.ca), vendor.root)
    enclave = recipe.quoting_enclave
    header = struct.pack(
        "<HHIHH16s20s",
        _VERSION,
        _ECDSA_P256,
        0,
        enclave.isv_svn,
        vendor.PCE_SVN,
        INTEL_QE_VENDOR_ID,
        label_bytes("machine " + vendor.root_name, 16),
    )
    signed = header + report.to_bytes()
    key = point(vendor.attestation_key)
    qe_report = SgxReport(
        cpu_svn=vendor.cpu_svn,
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
    certificates = "".join(party.pem for party in chain).encode() + b"\0"
    signature_data = b"".join(
        (
            sign_raw(vendor.attestation_key, signed),
            key,
            qe_report,
            sign_raw(chain[0].key, qe_report),
            struct.pack("<H", len(recipe.qe_auth_data)),
            recipe.qe_auth_data,
            struct.pack("<HI", PCK_CERTIFICATE_CHAIN, len(certificates)),
            certificates,
        )
    )
    return signed + struct.pack("<I", len(signature_data)) + signature_data
