"""Messages of wire v1, Gramine's secret provisioning protocol: one request, one answer, and no word for no.

Sans I/O. Format: Gramine 1.9, ``tools/sgx/ra-tls/secret_prov*``; written down in ``docs/reference/wire-v1.md``.
"""

from __future__ import annotations

from ensconce.appraisal.policy_identity import Form
from ensconce.errors import RefusedError, UnreachableError

__all__ = ["KEY_SIZE", "MAX_TEXT", "REQUEST", "RESPONSE", "check_request", "encode_answer", "to_form"]

REQUEST = b"SECRET_PROVISION_RA_TLS_REQUEST_V1\x00"
"""What a client sends, 35 bytes."""

RESPONSE = b"SECRET_PROVISION_RA_TLS_RESPONSE_V1:\x00"
"""What an answer begins with, 37 bytes; 4 bytes of size, big-endian, and the secret follow."""

KEY_SIZE = 16
"""Bytes of a key for encrypted files; Gramine takes no other size."""

MAX_TEXT = 4095
"""Longest text in bytes, NUL not counted: the library's limit is Linux's PATH_MAX, NUL counted."""


def check_request(data: bytes, more: int = 0) -> None:
    """Check a request; there is only one.

    Args:
        data: the first 35 bytes that the client sent.
        more: bytes that came after them.

    Raises:
        UnreachableError: ``provisioning.request``.
    """
    if data != REQUEST or more:
        raise UnreachableError(
            "provisioning.request",
            "this is no request of Gramine's secret provisioning",
            found=ascii(data[:40]) + (f" and {more} more bytes" if more else ""),
            rule="the 35 bytes SECRET_PROVISION_RA_TLS_REQUEST_V1 and NUL",
            remedy="let the other side speak that, or offer ALPN ensconce/1",
        )


def to_form(secret: bytes, form: Form) -> bytes:
    """A secret as the client wants it: ``raw`` 16 bytes, ``hex`` 32 digits and a NUL, ``text`` the secret and a NUL.

    Raises:
        RefusedError: ``policy.wire_v1``: this secret has no such form. The library would drop it without a word, and
            an older one would then run the program without it.
    """
    if form == "text":
        if not 0 < len(secret) <= MAX_TEXT or b"\x00" in secret:
            raise _unfit(form, f"{len(secret)} bytes", f"1 to {MAX_TEXT} bytes, none of them NUL")
        return secret + b"\x00"
    if len(secret) != KEY_SIZE:
        raise _unfit(form, f"{len(secret)} bytes", f"{KEY_SIZE} bytes")
    return secret if form == "raw" else secret.hex().encode("ascii") + b"\x00"


def encode_answer(payload: bytes) -> bytes:
    """The whole answer around a secret in its form: 41 bytes and the secret."""
    return RESPONSE + len(payload).to_bytes(4, "big") + payload


def _unfit(form: Form, found: str, rule: str) -> RefusedError:
    return RefusedError(
        "policy.wire_v1",
        f"the secret cannot be given in the form {form!r}",
        found=found,
        rule=rule,
        remedy="name another form, or another secret, under wire_v1: of this identity",
    )
