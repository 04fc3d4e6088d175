"""Quotes that a verifier of DCAP must not accept: each differs from a sound one in one respect."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SGX, TDX = ("SGX v3",), ("TDX v4", "TDX v5")


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def size(value: int) -> bytes:
    return struct.pack("<I", value)


def with_key(w: Any, key: bytes) -> bytes:
    """An attestation key that the quoting enclave does vouch for."""
    auth = bytes(range(32))
    quote = w.quote(qe_report_data=hashlib.sha256(key + auth).digest() + bytes(32), qe_auth_data=auth)
    return bytes(w.patched("key", key, quote))


def case(check: str, made: Any, **more: Any) -> dict[str, Any]:
    return {"check": check, "made": made, **more}


CASES = {
    "quote: empty": case("quote.truncated", lambda w: b""),
    "quote: a zero byte more": case("quote.trailing_bytes", lambda w: w.sound + b"\0", alone=True),
    "quote: twice": case("quote.trailing_bytes", lambda w: w.sound * 2, alone=True),
    "quote: longer than any": case("quote.size", lambda w: w.sound + bytes(16384), alone=True),
    "quote: version 2": case("quote.version", lambda w: w.patched("version", short(2))),
    "quote: version 6": case("quote.version", lambda w: w.patched("version", short(6))),
    "quote: version 4 in the header of version 3": case(
        "quote.certification_type", lambda w: w.patched("version", short(4)), kinds=SGX
    ),
    "quote: version 5 in the header of version 3": case(
        "quote.body_type", lambda w: w.patched("version", short(5)), kinds=SGX
    ),
    "quote: version 4 for SGX": case("quote.version", lambda w: w.quote(version=4), kinds=SGX, intel="it reads it"),
    "quote: version 5 for SGX": case("quote.version", lambda w: w.quote(version=5), kinds=SGX),
    "quote: version 3 for TDX": case("quote.tee_type", lambda w: w.patched("version", short(3)), kinds=TDX),
    "quote: version 5 in the header of version 4": case(
        "quote.body_type", lambda w: w.patched("version", short(5)), kinds=("TDX v4",)
    ),
    "quote: version 4 in the header of version 5": case(
        "quote.trailing_bytes", lambda w: w.patched("version", short(4)), kinds=("TDX v5",)
    ),
    "quote: body type of an enclave": case("quote.body_type", lambda w: w.patched(48, short(1)), kinds=("TDX v5",)),
    "quote: body type of TDX 1.0": case("quote.body_size", lambda w: w.patched(48, short(2)), kinds=("TDX v5",)),
    "quote: body type unknown": case("quote.body_type", lambda w: w.patched(48, short(5)), kinds=("TDX v5",)),
    "quote: body size says 4 GiB": case(
        "quote.body_size", lambda w: w.patched(50, size(0xFFFFFFFF)), kinds=("TDX v5",)
    ),
    "quote: key type 1": case("quote.attestation_key_type", lambda w: w.patched("key type", short(1))),
    "quote: key type 3": case("quote.attestation_key_type", lambda w: w.patched("key type", short(3))),
    "quote: TEE type TDX for SGX": case("quote.tee_type", lambda w: w.patched("TEE type", size(0x81)), kinds=SGX),
    "quote: TEE type SGX for TDX v4": case(
        "report.reserved", lambda w: w.patched("TEE type", size(0)), kinds=("TDX v4",)
    ),
    "quote: TEE type SGX for TDX v5": case(
        "quote.body_type", lambda w: w.patched("TEE type", size(0)), kinds=("TDX v5",)
    ),
    "quote: TEE type unknown": case("quote.tee_type", lambda w: w.patched("TEE type", size(1))),
    "quote: vendor id zero": case("quote.qe_vendor", lambda w: w.patched("vendor", bytes(16))),
    "quote: vendor id off by a bit": case("quote.qe_vendor", lambda w: w.patched("vendor", b"\x92")),
    "quote: security versions in the header changed": case(
        "quote.signature", lambda w: w.patched("SVNs", b"\xff\xff\xff\xff")
    ),
    "quote: user data changed": case("quote.signature", lambda w: w.patched("user data", b"\xff" * 20)),
    "quote: body changed": case("quote.signature", lambda w: w.patched(w.at["size"] - 1, b"\xff")),
    "quote: reserved bytes of the body not zero": case(
        "report.reserved", lambda w: w.patched(w.at["body"] + 20, b"\1"), kinds=SGX
    ),
    "quote: auth_data_size says 4 GiB": case("quote.truncated", lambda w: w.patched("size", size(0xFFFFFFFF))),
    "quote: auth_data_size says 0": case("quote.trailing_bytes", lambda w: w.patched("size", size(0))),
    "quote: auth_data_size one too few": case(
        "quote.trailing_bytes", lambda w: w.patched("size", size(len(w.sound) - w.at["size"] - 5))
    ),
    "quote: auth_data_size one too many": case(
        "quote.truncated", lambda w: w.patched("size", size(len(w.sound) - w.at["size"] - 3))
    ),
    "quote: r = s = 0": case("quote.signature", lambda w: w.patched("signature", bytes(64))),
    "quote: r = 0": case("quote.signature", lambda w: w.patched("signature", bytes(32))),
    "quote: s = 0": case("quote.signature", lambda w: w.patched(w.at["signature"] + 32, bytes(32))),
    "quote: r + n": case("quote.signature", lambda w: w.patched("signature", b"\xff" * 32)),
    "quote: r = s = n": case("quote.signature", lambda w: w.patched("signature", ORDER.to_bytes(32, "big") * 2)),
    "quote: r and s exchanged": case(
        "quote.signature",
        lambda w: w.patched("signature", w.sound[w.at["key"] - 32 : w.at["key"]] + w.sound[w.at["signature"] :][:32]),
    ),
    "quote: attestation key of another": case(
        "quote.signature", lambda w: with_key(w, w.sound[w.at["key"] :][:63] + b"\0")
    ),
    "quote: attestation key zero": case("quote.signature", lambda w: with_key(w, bytes(64))),
    "quote: attestation key off the curve": case("quote.signature", lambda w: with_key(w, b"\1" * 64)),
    "quote: attestation key beyond the field": case("quote.signature", lambda w: with_key(w, b"\xff" * 64)),
    "quote: attestation key that nobody vouches for": case(
        "quote.qe_report_data", lambda w: w.patched("key", bytes(64))
    ),
    "quote: QE report changed": case("quote.qe_report_signature", lambda w: w.patched("QE report", b"\xff")),
    "quote: QE report r = s = 0": case("quote.qe_report_signature", lambda w: w.patched("QE signature", bytes(64))),
    "quote: QE auth data changed": case("quote.qe_report_data", lambda w: w.patched("auth", b"\xff")),
    "quote: QE auth data 0": case(
        "quote.qe_auth_data", lambda w: w.quote(qe_auth_data=b""), intel="it takes any length"
    ),
    "quote: QE auth data 31": case(
        "quote.qe_auth_data", lambda w: w.quote(qe_auth_data=bytes(31)), intel="it takes any length"
    ),
    "quote: QE auth data 33": case(
        "quote.qe_auth_data", lambda w: w.quote(qe_auth_data=bytes(33)), intel="it takes any length"
    ),
    "quote: QE auth data 64": case(
        "quote.qe_auth_data", lambda w: w.quote(qe_auth_data=bytes(64)), intel="it takes any length"
    ),
    **{
        f"quote: certification type {kind}": case(
            "quote.certification_type",
            lambda w, kind=kind: w.patched("certification type", short(kind)),
            intel="its callers give it the certificates" if kind in (1, 2, 3, 4) else "",
        )
        for kind in (0, 1, 2, 3, 4, 6, 7, 8, 0xFFFF)
    },
    "quote: outer certification type 5": case(
        "quote.certification_type", lambda w: w.patched("outer type", short(5)), kinds=TDX, alone=True
    ),
    "quote: outer certification size says 4 GiB": case(
        "quote.truncated", lambda w: w.patched(w.at["outer type"] + 2, size(0xFFFFFFFF)), kinds=TDX
    ),
    "quote: certification size says 4 GiB": case(
        "quote.truncated", lambda w: w.patched("certification size", size(0xFFFFFFFF))
    ),
    "quote: certification size says 0": case(
        "quote.signature_data", lambda w: w.patched("certification size", size(0))
    ),
    "quote: debug": case(
        "quote.debug", lambda w: w.quote(w.debug_report()), intel="it leaves attributes to its callers"
    ),
    "quote: debug, and nobody signed that": case(
        "quote.signature", lambda w: w.patched("body", w.debug_report().to_bytes())
    ),
}


def test_negative(negative: Callable[[], None]) -> None:
    negative()


def test_truncated_at_every_boundary(world: Any) -> None:
    for place in {*world.at.values(), len(world.sound)}:
        for end in {max(place - 1, 0), place}:
            if end < len(world.sound):
                assert world.refused(world.sound[:end]) == "quote.truncated"


@settings(max_examples=60)
@given(data=st.data())
def test_truncated_anywhere(worlds: dict[str, Any], data: st.DataObject) -> None:
    world = worlds[data.draw(st.sampled_from(sorted(worlds)))]
    end = data.draw(st.integers(0, len(world.sound) - 1))
    with pytest.raises(EvidenceError) as caught:
        world.verify(world.sound[:end])
    assert caught.value.check == "quote.truncated"


def test_the_mirrored_signature_is_the_same_statement(world: Any) -> None:
    """ECDSA signatures (r, s) and (r, n - s) are both good: hence no hash of a quote may serve as its identity."""
    at = world.at["signature"] + 32
    s = int.from_bytes(world.sound[at : at + 32], "big")
    assert world.verify(world.patched(at, (ORDER - s).to_bytes(32, "big"))) == world.verify()


@settings(max_examples=300)
@given(data=st.data())
def test_no_changed_byte_changes_what_is_said(worlds: dict[str, Any], data: st.DataObject) -> None:
    """Not every changed byte is refused (PEM has bytes that mean nothing), but none makes another verdict."""
    world = worlds[data.draw(st.sampled_from(sorted(worlds)))]
    certificates = world.at["certificates"]
    # Most bytes are certificates; what comes before them gets as many tries.
    at = data.draw(st.one_of(st.integers(0, certificates - 1), st.integers(certificates, len(world.sound) - 1)))
    mask = data.draw(st.integers(1, 255))
    verdict = outcome(world, world.patched(at, bytes([world.sound[at] ^ mask])))
    assert verdict is None or (verdict == world.verify() and at >= certificates)


def outcome(world: Any, quote: bytes) -> Verdict | None:
    try:
        verdict: Verdict = world.verify(quote)
    except EvidenceError:
        return None
    return verdict
