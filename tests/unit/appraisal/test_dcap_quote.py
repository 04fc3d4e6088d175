"""The quote itself: bytes that a verifier of DCAP quotes must not accept.

Every case differs from a sound quote with sound collateral in one respect. Where dcap-qvl alone, or history's
verifiers, said yes, the case says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes
from ensconce.platform.simulated.quoting import QuoteRecipe

# Offsets in a version 3 quote.
BODY, SIGNATURE_SIZE = 48, 432
SIGNATURE, KEY, QE_REPORT, QE_SIGNATURE, AUTH_SIZE = 436, 500, 564, 948, 1012
CERT_TYPE, CERT_SIZE = 1014 + 32, 1016 + 32

Verify = Callable[..., Verdict]
Refused = Callable[..., str]
Papers = Callable[..., Collateral]
Quoting = Callable[..., bytes]


@pytest.fixture(scope="module")
def patched(quote: Quoting) -> Callable[[int, bytes], bytes]:
    """The sound quote with other bytes from an offset on."""

    def make(at: int, value: bytes) -> bytes:
        data = bytearray(quote())
        data[at : at + len(value)] = value
        return bytes(data)

    return make


def test_truncated_anywhere(verify: Verify, quote: Quoting) -> None:
    data = quote()
    boundaries = {0, 1, 47, 48, 431, 432, 435, 436, KEY, QE_REPORT, QE_SIGNATURE, AUTH_SIZE, CERT_TYPE, CERT_SIZE}
    for size in sorted(boundaries | {len(data) - 1, len(data) // 2, CERT_SIZE + 4}):
        with pytest.raises(EvidenceError):
            verify(data[:size])


@pytest.mark.parametrize("more", [b"\0", b"\0" * 64, b"x", None], ids=["zero", "zeros", "x", "itself"])
def test_trailing_bytes(refused: Refused, quote: Quoting, more: bytes | None) -> None:
    """dcap-qvl alone: accepted."""
    assert refused(quote() + (quote() if more is None else more)) in ("quote.trailing_bytes", "quote.size")


@pytest.mark.parametrize(
    ("at", "value", "checks"),
    [
        (0, struct.pack("<H", 2), ("quote.version",)),
        (0, struct.pack("<H", 4), None),
        (0, struct.pack("<H", 5), None),
        (0, struct.pack("<H", 6), ("quote.version",)),
        (2, struct.pack("<H", 3), ("quote.attestation_key_type",)),
        (4, struct.pack("<I", 0x81), ("quote.tee_type",)),
        (4, struct.pack("<I", 1), ("quote.tee_type",)),
        (12, bytes(16), ("quote.qe_vendor",)),
        (8, b"\xff\xff", ("quote.signature",)),
        (28, b"\xff" * 20, ("quote.signature",)),
        (BODY + 64, b"\x33" * 32, ("quote.signature",)),
        (BODY + 320, b"\xff" * 64, ("quote.signature",)),
        (SIGNATURE_SIZE, struct.pack("<I", 0xFFFFFFFF), ("quote.truncated",)),
        (SIGNATURE_SIZE, struct.pack("<I", 0), None),
        (SIGNATURE, bytes(64), None),
        (SIGNATURE, bytes(32), None),
        (KEY, bytes(64), None),
        (KEY, b"\xff" * 64, None),
        (QE_REPORT, b"\xff", ("quote.qe_report_signature",)),
        (QE_SIGNATURE, bytes(64), None),
        (AUTH_SIZE, struct.pack("<H", 0xFFFF), ("quote.truncated", "quote.signature_data")),
        (AUTH_SIZE + 2, b"\xff", ("quote.qe_report_data",)),
        (CERT_SIZE, struct.pack("<I", 0xFFFFFFFF), ("quote.truncated", "quote.signature_data")),
    ],
)
def test_changed_fields(
    refused: Refused, patched: Quoting, at: int, value: bytes, checks: tuple[str, ...] | None
) -> None:
    check = refused(patched(at, value))
    assert checks is None or check in checks
    assert check.startswith("quote.")


def test_another_attestation_key(refused: Refused, quote: Quoting, patched: Quoting) -> None:
    assert refused(patched(KEY + 63, bytes([quote()[KEY + 63] ^ 1]))).startswith("quote.")


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 7, 8, 0xFFFF])
def test_other_certification_data(refused: Refused, patched: Quoting, kind: int) -> None:
    assert refused(patched(CERT_TYPE, struct.pack("<H", kind))) == "quote.certification_type"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_authentication_data_of_another_length(refused: Refused, quote: Quoting, size: int) -> None:
    """Intel's library accepts any length; dcap-qvl and this layer want what Intel's quoting enclave makes."""
    assert refused(quote(QuoteRecipe(qe_auth_data=bytes(size)))) == "quote.qe_auth_data"


def test_a_quoting_enclave_that_vouches_for_another_key(refused: Refused, quote: Quoting) -> None:
    assert refused(quote(QuoteRecipe(qe_report_data=bytes(64)))) == "quote.qe_report_data"
    # The second half is zero in practice; Intel's library does not look at it either, the first half binds the key.
    for at in (0, 31):
        bound = bytearray(quote()[QE_REPORT + 320 : QE_REPORT + 384])
        bound[at] ^= 1
        assert refused(quote(QuoteRecipe(qe_report_data=bytes(bound)))) == "quote.qe_report_data"


def test_debug_enclaves(refused: Refused, quote: Quoting) -> None:
    flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
    assert refused(quote(flags=flags)) == "quote.debug"


def test_no_changed_byte_changes_what_is_said(verify: Verify, quote: Quoting, collateral: Papers) -> None:
    """Not every changed byte is refused (PEM has bytes that mean nothing), but none makes another verdict."""
    data, papers, sound = quote(), collateral(), verify()
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        try:
            verdict = verify(bytes(changed), papers)
        except EvidenceError:
            continue
        assert verdict == sound
        assert at > CERT_SIZE
