from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import VerificationError

from ensconce.errors import InputError
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.trust import load_authority, verify_server

NOW = 1_790_000_000
TODAY = dt.datetime.fromtimestamp(NOW, dt.UTC)
AUTHORITY = CertificateAuthority.create("the owner", NOW)
OTHER = CertificateAuthority.create("the owner", NOW)
LEAF = x509.load_pem_x509_certificate(
    AUTHORITY.issue_server(ec.generate_private_key(ec.SECP256R1()).public_key(), "a.test", now=NOW, lifetime=3600)
)


def test_the_authority_is_one_certificate() -> None:
    assert load_authority(AUTHORITY.certificate_pem) == AUTHORITY.certificate


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        AUTHORITY.certificate_pem + OTHER.certificate_pem,
        AUTHORITY.certificate_pem.replace(b"MII", b"MIX", 1),
    ],
    ids=["empty", "nonsense", "two", "damaged"],
)
def test_an_authority_that_is_none(pem: bytes) -> None:
    with pytest.raises(InputError) as refused:
        load_authority(pem)
    assert refused.value.check == "authority.certificate"


def test_a_server_under_the_authority() -> None:
    verify_server(LEAF, [], authority=AUTHORITY.certificate, name="a.test", now=TODAY)


@pytest.mark.parametrize(
    ("authority", "name", "later"), [(OTHER, "a.test", 0), (AUTHORITY, "b.test", 0), (AUTHORITY, "a.test", 3601)]
)
def test_servers_that_do_not_stand_under_it(authority: CertificateAuthority, name: str, later: int) -> None:
    with pytest.raises(VerificationError):
        verify_server(LEAF, [], authority=authority.certificate, name=name, now=TODAY + dt.timedelta(seconds=later))
