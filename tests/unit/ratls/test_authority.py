from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ensconce.errors import InputError, IntegrityError
from ensconce.evidence.certificate import OID_TCG, evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.ratls.authority import CertificateAuthority

NOW = 1_790_000_000
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("the owner", NOW)


def when(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def verify(authority: CertificateAuthority, leaf: x509.Certificate, name: str, at: int) -> None:
    builder = PolicyBuilder().store(Store([authority.certificate])).time(when(at).replace(tzinfo=None))
    builder.build_server_verifier(x509.DNSName(name)).verify(leaf, [])


def test_the_root_is_an_authority_for_servers_and_nothing_above(authority: CertificateAuthority) -> None:
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = authority.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    authority.certificate.verify_directly_issued_by(authority.certificate)


def test_a_long_name_is_cut() -> None:
    authority = CertificateAuthority.create("n" * 100, NOW)
    assert authority.certificate.subject.rfc4514_string() == "CN=" + "n" * 64


def test_it_is_made_again_of_its_parts(authority: CertificateAuthority) -> None:
    again = CertificateAuthority.load(authority.key, authority.certificate_pem)
    assert again.certificate == authority.certificate
    assert again.key.private_numbers() == authority.key.private_numbers()
    assert "PRIVATE" not in repr(again)


@pytest.mark.parametrize("damage", ["certificate", "other key", "other curve", "empty"])
def test_what_does_not_belong_together_is_refused(authority: CertificateAuthority, damage: str) -> None:
    key, pem = authority.key, authority.certificate_pem
    if damage == "certificate":
        pem = pem[:100]
    elif damage == "other key":
        key = CertificateAuthority.create("x", NOW).key
    elif damage == "other curve":
        key = ec.generate_private_key(ec.SECP384R1())
    else:
        pem = b""
    with pytest.raises(IntegrityError) as caught:
        CertificateAuthority.load(key, pem)
    assert caught.value.check == "authority.key"
    assert caught.value.__cause__ is None


def test_a_certificate_for_a_server(authority: CertificateAuthority) -> None:
    evidence = evidence_extension(b"a quote", encode_claims(b"a key"))
    pem = authority.issue_server(KEY.public_key(), "a.test", now=NOW, evidence=evidence, lifetime=3600)
    [leaf] = x509.load_pem_x509_certificates(pem)
    verify(authority, leaf, "a.test", NOW)
    assert leaf.public_key() == KEY.public_key()
    assert leaf.not_valid_before_utc == when(NOW - 300)
    assert leaf.not_valid_after_utc == when(NOW + 3600)
    assert leaf.extensions.get_extension_for_oid(OID_TCG).value == evidence
    assert not leaf.extensions.get_extension_for_oid(OID_TCG).critical
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for name, at in (("b.test", NOW), ("a.test", NOW + 3601), ("a.test", NOW - 301)):
        with pytest.raises(VerificationError):
            verify(authority, leaf, name, at)


def test_serial_numbers_are_random(authority: CertificateAuthority) -> None:
    serials = {
        x509.load_pem_x509_certificate(authority.issue_server(KEY.public_key(), "a.test", now=NOW)).serial_number
        for _ in range(20)
    }
    assert len(serials) == 20
    assert min(serials).bit_length() > 64


def test_a_name_too_long_for_a_subject_is_an_alternative_name(authority: CertificateAuthority) -> None:
    name = "a" * 60 + ".example.test"
    leaf = x509.load_pem_x509_certificate(authority.issue_server(KEY.public_key(), name, now=NOW))
    assert leaf.subject.rfc4514_string() == ""
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    verify(authority, leaf, name, NOW)


def test_nothing_outlives_the_root(authority: CertificateAuthority) -> None:
    end = int(authority.certificate.not_valid_after_utc.timestamp())
    leaf = x509.load_pem_x509_certificate(
        authority.issue_server(KEY.public_key(), "a.test", now=end - 60, lifetime=3600)
    )
    assert leaf.not_valid_after_utc == when(end)
    with pytest.raises(InputError) as caught:
        authority.issue_server(KEY.public_key(), "a.test", now=end)
    assert caught.value.check == "authority.expired"
