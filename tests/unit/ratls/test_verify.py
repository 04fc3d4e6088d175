from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import (
    OID_LEGACY_GRAMINE,
    CertificateEvidence,
    evidence_extension,
    read_certificate,
    read_request,
)
from ensconce.evidence.claims import encode_claims, parse_claims
from ensconce.evidence.report import SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.request import make_certificate_request, make_key_container
from ensconce.ratls.verify import check_binding, evidence_of, key_in_container, read_signed_request

NOW = 1_790_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())

Quoting = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def quote(sound_report: Callable[..., SgxReport]) -> Quoting:
    vendor = SimulatedVendor(bytes(32), NOW)
    return lambda report_data: make_quote(vendor, sound_report(vendor, report_data=report_data))


def evidence(claims: bytes | None, spki: bytes = b"key") -> CertificateEvidence:
    return CertificateEvidence(
        quote=b"",
        claims=parse_claims(claims) if claims is not None else None,
        form="tcg" if claims else "legacy",
        spki_der=spki,
    )


def refused(check: str, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        call(*arguments)
    assert caught.value.check == check


class TestBinding:
    claims = encode_claims(b"key")
    data = hashlib.sha256(claims).digest() + bytes(32)

    def test_claims_about_the_key_and_a_quote_about_the_claims(self) -> None:
        check_binding(evidence(self.claims), self.data)

    def test_gramines_legacy_form_hashes_the_key(self) -> None:
        check_binding(evidence(None), hashlib.sha256(b"key").digest() + bytes(32))
        refused("ratls.report_data", check_binding, evidence(None), self.data)

    @pytest.mark.parametrize(("algorithm", "name"), [(1, "sha256"), (7, "sha384"), (8, "sha512")])
    def test_every_registered_hash_will_do(self, algorithm: int, name: str) -> None:
        digest = hashlib.new(name, b"key").digest()
        key_hash = bytes([0x82, algorithm, 0x58, len(digest)]) + digest
        claims = b"\xa1\x6bpubkey-hash\x58" + bytes([len(key_hash)]) + key_hash
        check_binding(evidence(claims), hashlib.sha256(claims).digest() + bytes(32))
        refused(
            "ratls.pubkey_hash", check_binding, evidence(claims, b"kez"), hashlib.sha256(claims).digest() + bytes(32)
        )

    def test_another_key(self) -> None:
        refused("ratls.pubkey_hash", check_binding, evidence(self.claims, b"another key"), self.data)

    def test_other_claims(self) -> None:
        refused("ratls.report_data", check_binding, evidence(self.claims), bytes(64))

    @pytest.mark.parametrize("at", [0, 31, 32, 63])
    def test_every_byte_of_the_report_data_counts(self, at: int) -> None:
        changed = bytearray(self.data)
        changed[at] ^= 0x80
        refused("ratls.report_data", check_binding, evidence(self.claims), bytes(changed))

    def test_a_nonce_that_nobody_asked_for(self) -> None:
        claims = encode_claims(b"key", nonce=b"1")
        refused("ratls.nonce", check_binding, evidence(claims), hashlib.sha256(claims).digest() + bytes(32))

    @given(st.binary(min_size=64, max_size=64))
    def test_no_other_report_data_will_do(self, data: bytes) -> None:
        if data != self.data:
            refused("ratls.report_data", check_binding, evidence(self.claims), data)


class TestCertificates:
    def test_the_evidence_of_a_request_passes_into_the_certificate(self, quote: Quoting) -> None:
        request = read_signed_request(make_certificate_request(KEY, "a.test", quote))
        assert (request.domain, request.spki_der) == ("a.test", spki_of(KEY.public_key()))
        authority = CertificateAuthority.create("x", NOW)
        pem = authority.issue_server(request.public_key, "a.test", now=NOW, evidence=request.extension)
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        assert evidence_of(der) == request.evidence.quote
        assert read_certificate(der).claims == request.evidence.claims

    def test_evidence_for_another_key_is_refused(self, quote: Quoting) -> None:
        request = read_signed_request(make_certificate_request(KEY, "a.test", quote))
        authority = CertificateAuthority.create("x", NOW)
        pem = authority.issue_server(OTHER.public_key(), "a.test", now=NOW, evidence=request.extension)
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        refused("ratls.pubkey_hash", evidence_of, der)

    def test_a_certificate_without_evidence_is_refused(self) -> None:
        refused("certificate.evidence", evidence_of, make_key_container(KEY).public_bytes(Encoding.DER))
        refused("certificate.format", evidence_of, b"no certificate")

    def test_evidence_without_a_quote_is_refused(self) -> None:
        builder = request_builder().add_extension(evidence_extension(b"no quote", encode_claims(b"x")), critical=False)
        der = builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
        assert read_request(der).quote == b"no quote"


def request_builder(name: str | None = "a.test", subject: str = "") -> x509.CertificateSigningRequestBuilder:
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    return (
        builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        if name is not None
        else builder
    )


TCG = evidence_extension(b"quote", encode_claims(b"key"))


class TestRequests:
    @pytest.mark.parametrize(
        "builder",
        [
            request_builder(None).add_extension(TCG, critical=False),
            request_builder(subject="a.test").add_extension(TCG, critical=False),
            request_builder().add_extension(x509.UnrecognizedExtension(OID_LEGACY_GRAMINE, b"quote"), critical=False),
            request_builder()
            .add_extension(TCG, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True),
            request_builder()
            .add_extension(TCG, critical=False)
            .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"x"),
        ],
        ids=["no name", "a subject", "legacy evidence", "another extension", "another attribute"],
    )
    def test_requests_for_more_or_less_are_refused(self, builder: x509.CertificateSigningRequestBuilder) -> None:
        der = builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
        refused("request.contents", read_signed_request, der)

    @pytest.mark.parametrize("kind", ["P-384", "RSA"])
    def test_keys_of_other_kinds_are_refused(self, rsa_key: Callable[..., Any], kind: str) -> None:
        key = ec.generate_private_key(ec.SECP384R1()) if kind == "P-384" else rsa_key(65537, 2048)
        der = request_builder().add_extension(TCG, critical=False).sign(key, hashes.SHA256())
        refused("request.key", read_signed_request, der.public_bytes(Encoding.DER))

    def test_a_changed_request_is_refused(self, quote: Quoting) -> None:
        der = make_certificate_request(KEY, "a.test", quote)
        refused("request.signature", read_signed_request, der.replace(b"a.test", b"b.test"))

    @given(st.binary(max_size=200))
    def test_what_is_no_request_is_refused(self, data: bytes) -> None:
        with pytest.raises(EvidenceError):
            read_signed_request(data)


class TestContainers:
    def test_the_key_of_a_container(self) -> None:
        assert key_in_container(make_key_container(KEY).public_bytes(Encoding.DER)) == spki_of(KEY.public_key())

    def test_containers_that_another_key_signed(self) -> None:
        container = make_key_container(KEY)
        builder = (
            x509.CertificateBuilder()
            .subject_name(container.subject)
            .issuer_name(container.subject)
            .public_key(KEY.public_key())
            .serial_number(1)
            .not_valid_before(container.not_valid_before_utc)
            .not_valid_after(container.not_valid_after_utc)
        )
        refused("ratls.container", key_in_container, builder.sign(OTHER, hashes.SHA256()).public_bytes(Encoding.DER))

    def test_containers_that_take_long_to_read(self, quote: Quoting) -> None:
        def container(names: int, *extensions: x509.UnrecognizedExtension) -> bytes:
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")] * names)
            empty = make_key_container(KEY)
            builder = x509.CertificateBuilder(
                issuer_name=name,
                subject_name=name,
                public_key=KEY.public_key(),
                serial_number=1,
                not_valid_before=empty.not_valid_before_utc,
                not_valid_after=empty.not_valid_after_utc,
            )
            for extension in extensions:
                builder = builder.add_extension(extension, critical=False)
            return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)

        assert key_in_container(container(20, evidence_extension(quote(bytes(64)), encode_claims(b"key"))))
        refused("ratls.container", key_in_container, container(200))
        other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(3000))
        refused("ratls.container", key_in_container, container(1, other))

    @given(st.binary(max_size=200))
    def test_what_is_no_certificate_is_refused(self, data: bytes) -> None:
        refused("ratls.container", key_in_container, data)
