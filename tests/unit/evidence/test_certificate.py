from __future__ import annotations

import contextlib
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import (
    OID_LEGACY_GRAMINE,
    OID_LEGACY_MEANT,
    OID_TCG,
    evidence_extension,
    read_certificate,
    read_request,
)
from ensconce.evidence.claims import encode_claims

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
CLAIMS = encode_claims(SPKI)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "replica")])
WHEN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def certificate(*extensions: x509.UnrecognizedExtension) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(WHEN)
        .not_valid_after(WHEN + datetime.timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def request(*extensions: x509.UnrecognizedExtension) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def legacy(oid: x509.ObjectIdentifier, quote: bytes = b"legacy quote") -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(oid, quote)


@pytest.mark.parametrize(("read", "make"), [(read_certificate, certificate), (read_request, request)])
def test_evidence_in_certificates_and_requests(read, make) -> None:  # type: ignore[no-untyped-def]
    found = read(make(evidence_extension(b"quote", CLAIMS)))
    assert (found.quote, found.form, found.spki_der) == (b"quote", "tcg", SPKI)
    assert found.claims.encoded == CLAIMS


@pytest.mark.parametrize("oid", [OID_LEGACY_GRAMINE, OID_LEGACY_MEANT])
def test_both_ways_to_write_the_legacy_oid(oid: x509.ObjectIdentifier) -> None:
    found = read_certificate(certificate(legacy(oid)))
    assert (found.quote, found.claims, found.form) == (b"legacy quote", None, "legacy")


def test_the_tcg_form_comes_first() -> None:
    found = read_certificate(certificate(legacy(OID_LEGACY_GRAMINE), evidence_extension(b"quote", CLAIMS)))
    assert (found.quote, found.form) == (b"quote", "tcg")


def refused(der: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        read_certificate(der)
    return caught.value.check


def test_a_broken_tcg_form_does_not_fall_back() -> None:
    broken = x509.UnrecognizedExtension(OID_TCG, b"broken")
    assert refused(certificate(legacy(OID_LEGACY_GRAMINE), broken)) == "claims.format"
    no_key = x509.UnrecognizedExtension(OID_TCG, evidence_extension(b"quote", b"\xa0").value)
    assert refused(certificate(legacy(OID_LEGACY_GRAMINE), no_key)) == "claims.pubkey_hash"


def test_evidence_is_there_once() -> None:
    assert refused(certificate()) == "certificate.evidence"
    assert refused(certificate(legacy(OID_LEGACY_GRAMINE), legacy(OID_LEGACY_MEANT))) == "certificate.evidence"


def test_bounds() -> None:
    assert refused(certificate(legacy(OID_LEGACY_MEANT, bytes(17_000)))) == "quote.size"
    assert refused(certificate(evidence_extension(bytes(17_000), CLAIMS))) == "claims.format"
    assert refused(bytes(70_000)) == "certificate.size"


@pytest.mark.parametrize("der", [b"", b"\x30\x00", certificate() + b"\0", certificate()[:-1], request()])
def test_certificates_that_are_none(der: bytes) -> None:
    assert refused(der) == "certificate.format"


@pytest.mark.parametrize("which", ["issuer", "subject"])
def test_a_name_that_cannot_be_read_is_found_here(which: str) -> None:
    # cryptography would find it when somebody first asks for the name, outside of every handler.
    name = b"\x0c\x07replica"
    sound = certificate(evidence_extension(b"quote" * 20, CLAIMS))
    at = sound.index(name) if which == "issuer" else sound.rindex(name)
    assert refused(sound[: at + 2] + b"\xff" * 7 + sound[at + 9 :]) == "certificate.format"
    asked = request(evidence_extension(b"quote" * 20, CLAIMS)).replace(name, b"\x0c\x07" + b"\xff" * 7)
    with pytest.raises(EvidenceError):
        read_request(asked)


SOUND = certificate(evidence_extension(b"quote" * 20, CLAIMS))


@settings(max_examples=300)
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_mutants_are_read_or_refused(at: int, mask: int) -> None:
    changed = bytearray(SOUND)
    changed[at] ^= mask
    with contextlib.suppress(EvidenceError):
        assert len(read_certificate(bytes(changed)).quote) == 100
