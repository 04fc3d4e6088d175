"""A quote in a file: by itself, or in the certificate that a running enclave shows."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.errors import EvidenceError
from ensconce.files import read_bounded
from ensconce.ratls.verify import evidence_of

__all__ = ["read_quote"]

# Beyond this a file is not taken for a quote at all; a shorter one that is too long for a quote is bad evidence.
_MAX_FILE = 1 << 20


def read_quote(file: Path) -> bytes:
    """The quote in a file; nothing of it is verified.

    Args:
        file: a quote, in binary; or a certificate that carries one about its own key, PEM (the first counts) or DER.

    Raises:
        InputError: the file cannot be read.
        EvidenceError: it is a certificate that cannot be read, or whose evidence is missing or about another key.
    """
    data = read_bounded(file, _MAX_FILE)
    try:
        pem = data.lstrip().startswith(b"-----BEGIN CERTIFICATE")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    except ValueError:
        if data.lstrip().startswith(b"-----BEGIN"):
            raise EvidenceError(
                "certificate.format", "this is no certificate", remedy="name a quote, or a certificate in PEM or DER"
            ) from None
        return data
    return evidence_of(certificate.public_bytes(Encoding.DER))
