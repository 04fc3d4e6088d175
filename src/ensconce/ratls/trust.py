"""The owner's authority as those have it who believe it: one certificate, and what stands under it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from ensconce.errors import InputError

__all__ = ["load_authority", "verify_server"]


def load_authority(pem: bytes) -> x509.Certificate:
    """The owner's certificate authority from ``ca.pem``.

    Raises:
        InputError: it is not exactly one certificate in PEM.
    """
    try:
        (certificate,) = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InputError(
            "authority.certificate",
            "the owner's certificate authority cannot be read",
            found=str(error)[:200],
            rule="exactly one certificate in PEM",
            remedy="copy ca.pem from the owner again",
        ) from error
    return certificate


def verify_server(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    *,
    authority: x509.Certificate,
    name: str,
    now: dt.datetime,
) -> None:
    """Verify a server's certificate: under this authority, for this name, for servers, at this time.

    Raises:
        cryptography.x509.verification.VerificationError: it does not hold; each caller says what that means.
    """
    verifier = PolicyBuilder().store(Store([authority])).time(now).build_server_verifier(x509.DNSName(name))
    verifier.verify(leaf, list(intermediates))
