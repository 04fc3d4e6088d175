from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import OID_LEGACY_GRAMINE, OID_LEGACY_MEANT, OID_TCG, check_lean
from ensconce.evidence.der import length_beside

KEY = ec.generate_private_key(ec.SECP256R1())
QUOTE = bytes(16_000)


def certificate(*extensions: x509.ExtensionType, critical: bool = False) -> bytes:
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1)
    builder = builder.not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.UTC)).not_valid_after(
        dt.datetime(2090, 1, 1, tzinfo=dt.UTC)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def request(*extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def names(count: int) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName("a")] * count)


@pytest.mark.parametrize("critical", [False, True])
def test_evidence_may_be_long(critical: bool) -> None:
    oids = (OID_TCG, OID_LEGACY_GRAMINE, OID_LEGACY_MEANT)
    evidence = [x509.UnrecognizedExtension(oid, QUOTE) for oid in oids]
    check_lean(certificate(*evidence, critical=critical), "certificate")
    check_lean(request(names(1), evidence[0]), "certificate request")


@pytest.mark.parametrize("make", [certificate, request])
def test_nothing_else_may(make: object) -> None:
    assert callable(make)
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), QUOTE)
    # An identifier inside something else names nothing.
    disguised = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.2.3"), bytes.fromhex("06066781050504090482") + len(QUOTE).to_bytes(2, "big") + QUOTE
    )
    for extension in (names(1000), other, disguised):
        with pytest.raises(EvidenceError) as caught:
            check_lean(make(extension, x509.UnrecognizedExtension(OID_TCG, QUOTE)), "certificate")
        assert caught.value.check == "certificate.size"


@pytest.mark.parametrize("hex_", ["30", "3080", "3002", "308500000000", "1f0100", "30820000ff", "0401"])
def test_what_is_no_der_is_refused(hex_: str) -> None:
    with pytest.raises(ValueError, match="DER"):
        length_beside(bytes.fromhex(hex_), (), 1000)
    with pytest.raises(EvidenceError) as caught:
        check_lean(bytes.fromhex(hex_), "certificate")
    assert caught.value.check == "certificate.format"


@given(st.binary(max_size=300), st.integers(0, 300))
def test_it_counts_no_more_than_there_is(data: bytes, most: int) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= length_beside(data, (), most) <= len(data)


def test_without_exceptions_all_of_it_counts() -> None:
    der = certificate(names(3))
    assert length_beside(der, (), 10_000) == len(der)
