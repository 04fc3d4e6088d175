"""The PCK certificate in a quote: which platform it says it is from.

Nothing here is verified. It chooses collateral, and is compared with what verification found.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import dcap_qvl  # type: ignore[import-untyped]  # it has stubs, but no py.typed
from cryptography import x509

from ensconce.appraisal.chains import PCK_CHAIN, PCK_PLATFORM_CA_NAME, certificates_in, check_shape, common_name, to_pem
from ensconce.appraisal.validity import Window, certificate_windows
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import PCK_CERTIFICATE_CHAIN, Quote

__all__ = ["Pck", "PckCa", "chain_in", "pck_ca", "read_pck"]

_TCB_OID = "1.2.840.113741.1.13.1.2"

PckCa = Literal["processor", "platform"]
"""The vendor's two authorities for PCK certificates."""


@dataclass(frozen=True, slots=True)
class Pck:
    """What a quote says of the platform it is from.

    Attributes:
        chain: the certificates in the quote, leaf first.
        ca: which of the vendor's two authorities issued the leaf.
        fmspc: kind of platform, 12 upper-case hexadecimal digits.
        pce_id: of the provisioning certification enclave, 4 upper-case hexadecimal digits.
        windows: when the certificates are valid.
    """

    chain: tuple[x509.Certificate, ...]
    ca: PckCa
    fmspc: str
    pce_id: str
    windows: tuple[Window, ...]


def chain_in(quote: Quote) -> tuple[x509.Certificate, ...]:
    """The certificate chain that a quote carries, whatever its shape.

    Raises:
        EvidenceError: it carries none, or one that cannot be read.
    """
    return certificates_in(_certification_data(quote), "pck_chain.format")


def pck_ca(authority: x509.Certificate) -> PckCa:
    """Which of the vendor's authorities this certificate is of, by its name."""
    return "platform" if common_name(authority) == PCK_PLATFORM_CA_NAME else "processor"


def read_pck(quote: Quote) -> Pck:
    """Read the PCK certificate chain of a quote.

    Raises:
        EvidenceError: the quote carries no such chain, or one of another shape, or its leaf has no SGX extension
            (Intel, *SGX PCK certificate and certificate revocation list profile specification*, section 1.3.5).
    """
    return _read(_certification_data(quote))


def _certification_data(quote: Quote) -> bytes:
    if quote.certification_type != PCK_CERTIFICATE_CHAIN:
        raise EvidenceError(
            "quote.certification_type",
            "the quote does not carry its PCK certificate chain",
            found=f"certification data type {quote.certification_type}",
            rule=f"type {PCK_CERTIFICATE_CHAIN}",
            remedy="let the machine register with its provider's PCCS, so that its quoting library has the chain",
        )
    return quote.certification_data


# A machine's quotes all carry the same chain: what was read last is kept, refusals are not.
@functools.lru_cache(maxsize=128)
def _read(certification_data: bytes) -> Pck:
    chain = certificates_in(certification_data, "pck_chain.format")
    check_shape(chain, PCK_CHAIN, "pck_chain")
    try:
        extension = dcap_qvl.parse_pck_extension_from_pem(to_pem(chain[:1]).encode())
        fmspc, pce_id = bytes(extension.fmspc).hex().upper(), bytes(extension.pce_id).hex().upper()
        components = [
            int.from_bytes(extension.get_value(f"{_TCB_OID}.{number}") or b"", "big") for number in range(1, 17)
        ]
        # dcap-qvl compares CPUSVN with TCB levels, Intel's library the components; they say the same in every genuine
        # certificate, and must.
        if components != list(bytes(extension.cpu_svn)):
            raise ValueError("the TCB components and CPUSVN contradict each other")
    except ValueError as error:
        raise EvidenceError(
            "pck_chain.extension",
            "the PCK certificate does not say which platform it is for",
            found=str(error)[:200],
            rule="extension 1.2.840.113741.1.13.1",
            remedy="ask the platform for a new quote",
        ) from error
    windows = certificate_windows(chain, "pck_chain")
    return Pck(chain=chain, ca=pck_ca(chain[1]), fmspc=fmspc, pce_id=pce_id, windows=windows)
