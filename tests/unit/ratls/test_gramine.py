"""What Gramine's library presents is taken, and everything near it is not."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import OID_LEGACY_GRAMINE, evidence_extension
from ensconce.evidence.claims import encode_claims, encode_evidence
from ensconce.evidence.report import SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.ratls.gramine import GramineClient, read_gramine_client

NOW = 1_790_000_000
P256, P384, P521 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
KINDS = ("P-256", "P-384", "RSA-3072")

Make = Callable[..., x509.Certificate]
Quoting = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def quote(sound_report: Callable[..., SgxReport]) -> Quoting:
    vendor = SimulatedVendor(bytes(32), NOW)
    return lambda report_data: make_quote(vendor, sound_report(vendor, report_data=report_data))


@pytest.fixture
def keys(rsa_key: Callable[[int, int], rsa.RSAPrivateKey]) -> dict[str, Any]:
    return {"P-256": P256, "P-384": P384, "RSA-3072": rsa_key(65537, 3072)}


@pytest.fixture
def make(gramine_certificate: Make, quote: Quoting) -> Make:
    return lambda key, *arguments, **changes: gramine_certificate(key, quote, *arguments, **changes)


def read(certificate: x509.Certificate, at: int = NOW) -> GramineClient:
    return read_gramine_client(certificate.public_bytes(Encoding.DER), at)


def refused(certificate: x509.Certificate, at: int = NOW) -> str:
    with pytest.raises(EvidenceError) as caught:
        read(certificate, at)
    return caught.value.check


@pytest.mark.parametrize("forms", [("legacy",), ("meant",), ("tcg",), ("legacy", "tcg"), ("tcg", "meant")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_over_every_key(make: Make, keys: dict[str, Any], kind: str, forms: tuple[str, ...]) -> None:
    client = read(make(keys[kind], forms))
    assert client.form == ("tcg" if "tcg" in forms else "legacy")
    assert client.spki_der == spki_of(keys[kind].public_key())


class TestKey:
    @pytest.mark.parametrize("form", [(65537, 2048), (3, 3072)])
    def test_of_another_kind(self, make: Make, rsa_key: Callable[..., Any], form: tuple[int, int]) -> None:
        assert refused(make(rsa_key(*form))) == "ratls.key"

    def test_of_another_curve(self, make: Make) -> None:
        assert refused(make(P521)) == "ratls.key"

    def test_that_cannot_be_used_with_these_versions_of_tls(self, gramine_certificate: Make, quote: Quoting) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        name = x509.Name([])
        begin, end = (dt.datetime.fromtimestamp(NOW + days * 86400, dt.UTC) for days in (-1, 1))
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
        value = x509.UnrecognizedExtension(OID_LEGACY_GRAMINE, quote(bytes(64)))
        assert refused(builder.add_extension(value, False).sign(key, None)) == "ratls.key"


class TestSignature:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_another_key(self, make: Make, keys: dict[str, Any], kind: str) -> None:
        other = {"P-256": P384, "P-384": keys["RSA-3072"], "RSA-3072": P256}[kind]
        assert refused(make(keys[kind], signer=other)) == "ratls.container"

    def test_of_another_key_of_the_same_kind(self, make: Make) -> None:
        assert refused(make(P384, signer=ec.generate_private_key(ec.SECP384R1()))) == "ratls.container"

    def test_over_a_hash_that_gramine_does_not_use(self, make: Make) -> None:
        assert refused(make(P384, algorithm=hashes.SHA224())) == "ratls.container"

    @pytest.mark.parametrize("kind", KINDS)
    def test_changed(self, make: Make, keys: dict[str, Any], kind: str) -> None:
        der = bytearray(make(keys[kind]).public_bytes(Encoding.DER))
        der[-1] ^= 1
        with pytest.raises(EvidenceError, match=r"ratls\.container|certificate\.format"):
            read_gramine_client(bytes(der), NOW)


class TestDates:
    begin, end = (dt.datetime(2026, *day, tzinfo=dt.UTC) for day in ((1, 1), (12, 31)))

    def seconds(self, moment: dt.datetime) -> int:
        return int(moment.timestamp())

    @pytest.mark.parametrize("after", [0, 1])
    def test_within(self, make: Make, after: int) -> None:
        certificate = make(P384, begin=self.begin, end=self.end)
        read(certificate, self.seconds(self.begin) + after)
        read(certificate, self.seconds(self.end) - after)

    def test_before_and_after(self, make: Make) -> None:
        certificate = make(P384, begin=self.begin, end=self.end)
        assert refused(certificate, self.seconds(self.begin) - 1) == "ratls.validity"
        assert refused(certificate, self.seconds(self.end) + 1) == "ratls.validity"


class TestBinding:
    """Certificates that say the right thing about a key, in evidence about another."""

    def sign(self, *extensions: x509.UnrecognizedExtension) -> x509.Certificate:
        name = x509.Name([])
        begin, end = (dt.datetime.fromtimestamp(NOW + days * 86400, dt.UTC) for days in (-1, 1))
        builder = x509.CertificateBuilder(name, name, P384.public_key(), 1, begin, end)
        for extension in extensions:
            builder = builder.add_extension(extension, False)
        return builder.sign(P384, hashes.SHA256())

    def legacy(self, quote: Quoting, report_data: bytes) -> x509.UnrecognizedExtension:
        return x509.UnrecognizedExtension(OID_LEGACY_GRAMINE, quote(report_data))

    def tcg(self, quote: Quoting, claims: bytes, tail: bytes = bytes(32)) -> x509.UnrecognizedExtension:
        return evidence_extension(quote(hashlib.sha256(claims).digest() + tail), claims)

    spki = spki_of(P384.public_key())
    key_hash = hashlib.sha256(spki).digest()

    def test_the_helpers_are_sound(self, quote: Quoting) -> None:
        read(self.sign(self.legacy(quote, self.key_hash + bytes(32))))
        read(self.sign(self.tcg(quote, encode_claims(self.spki))))

    @pytest.mark.parametrize("at", [0, 31, 32, 63])
    def test_no_byte_of_the_report_data_is_free(self, quote: Quoting, at: int) -> None:
        changed = bytearray(self.key_hash + bytes(32))
        changed[at] ^= 1
        assert refused(self.sign(self.legacy(quote, bytes(changed)))) == "ratls.report_data"

    def test_the_tail_counts_in_the_tcg_form_too(self, quote: Quoting) -> None:
        assert refused(self.sign(self.tcg(quote, encode_claims(self.spki), b"\x01" * 32))) == "ratls.report_data"

    def test_claims_about_another_key(self, quote: Quoting) -> None:
        claims = encode_claims(spki_of(P256.public_key()))
        assert refused(self.sign(self.tcg(quote, claims))) == "ratls.pubkey_hash"

    def test_claims_that_the_quote_is_not_about(self, quote: Quoting) -> None:
        extension = evidence_extension(quote(self.key_hash + bytes(32)), encode_claims(self.spki))
        assert refused(self.sign(extension)) == "ratls.report_data"

    def test_claims_without_a_key(self, quote: Quoting) -> None:
        for claims in (b"\xa0", b"\xa1\x65nonce\x40"):
            assert refused(self.sign(self.tcg(quote, claims))) == "claims.pubkey_hash"

    def test_claims_with_two_keys(self, quote: Quoting) -> None:
        once = encode_claims(self.spki)[1:]
        assert refused(self.sign(self.tcg(quote, b"\xa2" + once + once))) == "claims.format"

    def test_claims_that_answer_a_challenge(self, quote: Quoting) -> None:
        assert refused(self.sign(self.tcg(quote, encode_claims(self.spki, b"nonce")))) == "ratls.nonce"

    def test_bad_tcg_evidence_never_falls_back_to_good_legacy_evidence(self, quote: Quoting) -> None:
        good = self.legacy(quote, self.key_hash + bytes(32))
        other = self.tcg(quote, encode_claims(spki_of(P256.public_key())))
        broken = x509.UnrecognizedExtension(other.oid, b"\x00" + encode_evidence(b"quote", b"\xa0"))
        assert refused(self.sign(good, other)) == "ratls.pubkey_hash"
        assert refused(self.sign(good, broken)) == "claims.format"

    def test_both_encodings_of_the_legacy_oid_at_once(self, make: Make) -> None:
        assert refused(make(P384, ("legacy", "meant"))) == "certificate.evidence"

    def test_no_evidence(self) -> None:
        assert refused(self.sign()) == "certificate.evidence"


@pytest.fixture(scope="module")
def sound(gramine_certificate: Make, quote: Quoting) -> bytes:
    return gramine_certificate(P384, quote).public_bytes(Encoding.DER)


@given(data=st.data())
def test_no_changed_byte_gets_through(sound: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EvidenceError):
        read_gramine_client(bytes(changed), NOW)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_gramine_client(data, NOW)
