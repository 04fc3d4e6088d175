"""Certificates that Gramine's own RA-TLS library made, with quotes of somebody's simulated platform."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.evidence.certificate import CertificateEvidence, read_certificate
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.report import SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.ratls.gramine import read_gramine_client

WHEN = 1_790_000_000
"""In the year 2026; the certificates' dates are Gramine's own, 2001 to 2030."""

# What Gramine wrote: 1.9 both forms, earlier releases the legacy one alone.
FORMS = {
    "old/client1": "legacy",
    "old/client2": "legacy",
    "old/client3": "legacy",
    "v19/client1": "tcg",
    "v19/client2": "legacy",
    "v19/client3": "tcg",
    "v19-tls12/client1": "tcg",
    "v19-tls12/client2": "tcg",
    "v19-tls12/client3": "tcg",
}


@pytest.fixture(params=sorted(FORMS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "ratls-certificates"


@pytest.fixture
def found(folder: Path, name: str) -> CertificateEvidence:
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    return read_certificate(certificate.public_bytes(Encoding.DER))


def test_the_form(found: CertificateEvidence, name: str) -> None:
    assert found.form == FORMS[name]
    assert (found.claims is None) == (found.form == "legacy")


def test_the_quote_is_the_one_inside(found: CertificateEvidence, folder: Path, name: str) -> None:
    apart = folder / f"{name}.{'dice' if found.form == 'tcg' else 'legacy'}.quote"
    if apart.exists():
        assert found.quote == apart.read_bytes()


def test_the_quote_binds_the_key(found: CertificateEvidence) -> None:
    body = parse_quote(found.quote).body
    assert isinstance(body, SgxReport)
    assert body.attributes.init
    assert not body.debug
    if found.claims:
        assert (found.claims.hash_algorithm, found.claims.nonce) == (1, None)
        assert found.claims.pubkey_hash == hashlib.sha256(found.spki_der).digest()
        bound = found.claims.encoded
    else:
        bound = found.spki_der
    assert body.report_data == hashlib.sha256(bound).digest() + bytes(32)


def test_a_provisioning_server_takes_it(folder: Path, name: str) -> None:
    """As far as its quote; for the vendor of that there is no collateral here."""
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    client = read_gramine_client(certificate.public_bytes(Encoding.DER), WHEN)
    assert client.form == FORMS[name]
    assert client.spki_der == spki_of(certificate.public_key())
