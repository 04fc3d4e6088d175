from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, MAX_QUOTE_SIZE, Quote, parse_quote
from ensconce.evidence.report import SgxReport, TdReport

SIGNATURE, KEY, QE_SIGNATURE, AUTH, PEM = b"\1" * 64, b"\2" * 64, b"\3" * 64, bytes(range(32)), b"certificates\0"


def header(version: int = 3, key_type: int = 2, tee: int = 0) -> bytes:
    return struct.pack("<HHIHH16s20s", version, key_type, tee, 8, 13, INTEL_QE_VENDOR_ID, b"user data")


def certification(kind: int = 5, data: bytes = PEM) -> bytes:
    return struct.pack("<HI", kind, len(data)) + data


def qe(auth: bytes = AUTH, inner: bytes | None = None) -> bytes:
    return bytes(384) + QE_SIGNATURE + struct.pack("<H", len(auth)) + auth + (inner or certification())


def quote(version: int = 3, tee: int = 0, body: bytes = bytes(384), data: bytes | None = None) -> bytes:
    if version == 5:
        kinds = {384: 1, 584: 2, 648: 3, 885: 4}
        body = struct.pack("<HI", kinds.get(len(body), 9), len(body)) + body
    if data is None:
        data = SIGNATURE + KEY + (qe() if version == 3 else certification(6, qe()))
    return header(version, tee=tee) + body + struct.pack("<I", len(data)) + data


SHAPES = {
    "SGX v3": quote(),
    "SGX v4": quote(4),
    "SGX v5": quote(5),
    "TDX v4": quote(4, 0x81, bytes(584)),
    "TDX v5, 1.0": quote(5, 0x81, bytes(584)),
    "TDX v5, 1.5": quote(5, 0x81, bytes(648)),
    "TDX v5, 1.5 extended": quote(5, 0x81, bytes(885)),
}


def refused(data: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        parse_quote(data)
    assert caught.value.remedy
    return caught.value.check


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: str) -> None:
    data = SHAPES[shape]
    parsed = parse_quote(data)
    assert isinstance(parsed.body, SgxReport if shape.startswith("SGX") else TdReport)
    assert parsed.tee == shape[:3].lower()
    assert (parsed.signature, parsed.attestation_key) == (SIGNATURE, KEY)
    assert (parsed.qe_report_signature, parsed.qe_auth_data) == (QE_SIGNATURE, AUTH)
    assert (parsed.certification_type, parsed.certification_data) == (5, PEM)
    assert (parsed.header.qe_svn, parsed.header.pce_svn) == (8, 13)
    assert data.startswith(parsed.signed)
    assert len(parsed.signed) == data.index(SIGNATURE) - 4


@pytest.mark.parametrize("shape", SHAPES)
def test_truncated_anywhere(shape: str) -> None:
    data = SHAPES[shape]
    for size in range(len(data)):
        assert refused(data[:size]) == "quote.truncated"


@pytest.mark.parametrize("shape", SHAPES)
def test_trailing_bytes(shape: str) -> None:
    assert refused(SHAPES[shape] + b"\0") == "quote.trailing_bytes"


@pytest.mark.parametrize("version", [0, 1, 2, 6, 0xFFFF])
def test_versions(version: int) -> None:
    assert refused(header(version) + quote()[48:]) == "quote.version"


@pytest.mark.parametrize(
    ("start", "check"),
    [
        (header(key_type=3), "quote.attestation_key_type"),
        (header(key_type=0), "quote.attestation_key_type"),
        (header(tee=0x81), "quote.tee_type"),
        (header(tee=1), "quote.tee_type"),
        (header(4, tee=0x82), "quote.tee_type"),
    ],
)
def test_headers(start: bytes, check: str) -> None:
    assert refused(start + quote()[48:]) == check


def test_bodies_of_version_5() -> None:
    assert refused(quote(5, 0x81, bytes(384))) == "quote.body_type"
    assert refused(quote(5, 0, bytes(584))) == "quote.body_type"
    assert refused(quote(5, 0, bytes(100))) == "quote.body_type"
    lie = bytearray(quote(5))
    lie[50:54] = struct.pack("<I", 0xFFFFFFFF)
    assert refused(bytes(lie)) == "quote.body_size"


@pytest.mark.parametrize("lie", [0, 1, 64, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_signature_datas_length_lies(lie: int) -> None:
    data = bytearray(quote())
    data[432:436] = struct.pack("<I", lie)
    assert refused(bytes(data)) in ("quote.truncated", "quote.trailing_bytes")


@pytest.mark.parametrize("kind", [0, 6, 8, 0xFFFF])
def test_certification_data_types(kind: int) -> None:
    assert refused(quote(data=SIGNATURE + KEY + qe(inner=certification(kind)))) == "quote.certification_type"
    assert refused(quote(4, data=SIGNATURE + KEY + certification(5, qe()))) == "quote.certification_type"


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 7])
def test_other_certification_data_is_read(kind: int) -> None:
    parsed = parse_quote(quote(data=SIGNATURE + KEY + qe(inner=certification(kind, b""))))
    assert (parsed.certification_type, parsed.certification_data) == (kind, b"")


@pytest.mark.parametrize("size", [0, 33, 64])
def test_authentication_data_of_any_length_is_read(size: int) -> None:
    assert len(parse_quote(quote(data=SIGNATURE + KEY + qe(bytes(size)))).qe_auth_data) == size


def test_bytes_between_parts() -> None:
    assert refused(quote(data=SIGNATURE + KEY + qe() + b"\0")) == "quote.signature_data"
    assert refused(quote(4, data=SIGNATURE + KEY + certification(6, qe() + b"\0"))) == "quote.signature_data"
    assert refused(quote(4, data=SIGNATURE + KEY + certification(6, qe()) + b"\0")) == "quote.signature_data"


def test_lengths_inside_lie() -> None:
    whole = qe()
    for at in (448, 448 + 2 + 32 + 2):
        lie = bytearray(whole)
        lie[at : at + 2] = b"\xff\xff"
        assert refused(quote(data=SIGNATURE + KEY + bytes(lie))) == "quote.truncated"


def test_too_long() -> None:
    assert refused(bytes(MAX_QUOTE_SIZE + 1)) == "quote.size"
    assert refused(quote(data=SIGNATURE + KEY + qe(inner=certification(5, bytes(MAX_QUOTE_SIZE))))) == "quote.size"


def test_any_buffer_will_do() -> None:
    assert parse_quote(bytearray(quote())) == parse_quote(memoryview(quote())) == parse_quote(quote())  # type: ignore[arg-type]


def _parsed(data: bytes) -> Quote | None:
    try:
        return parse_quote(data)
    except EvidenceError:
        return None


@settings(max_examples=300)
@given(st.binary(max_size=1200))
def test_noise_is_bad_evidence(data: bytes) -> None:
    assert _parsed(data) is None


@settings(max_examples=300)
@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_mutants_are_read_or_refused(shape: str, data: st.DataObject) -> None:
    mutant = bytearray(SHAPES[shape])
    for _ in range(data.draw(st.integers(1, 4))):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutant)))
    splice = data.draw(st.binary(max_size=8))
    for candidate in (bytes(mutant), bytes(mutant[:cut]) + splice, bytes(mutant[:cut]) + splice + bytes(mutant[cut:])):
        parsed = _parsed(candidate)
        assert parsed is None or parsed.signed == candidate[: len(parsed.signed)]
