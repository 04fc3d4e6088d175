"""Gramine's protocol: the certificate that a program presents, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])

Refused = Callable[..., Mapping[str, Any]]


class TestCertificate:
    @pytest.mark.parametrize("form", ["legacy", "tcg"])
    def test_with_the_quote_of_another(self, program: Any, refused: Refused, form: str) -> None:
        stolen = program.make(ec.generate_private_key(ec.SECP256R1()), program.enclave.quote, (form,)).extensions[1]
        own = program.make(program.key, program.enclave.quote, ())
        builder = x509.CertificateBuilder(own.issuer, own.subject, program.key.public_key(), 1)
        builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)
        copied = builder.add_extension(stolen.value, False).sign(program.key, hashes.SHA256())
        assert program.ask(certificate=copied) is None
        refused("ratls.report_data" if form == "legacy" else "ratls.pubkey_hash")

    def test_with_something_else_in_the_report_datas_tail(self, program: Any, refused: Refused) -> None:
        quote = program.enclave.quote
        tailed = program.make(program.key, lambda data: quote(data[:32] + b"\x01" + data[33:]), ("legacy",))
        assert program.ask(certificate=tailed) is None
        refused("ratls.report_data")

    @VERSIONS
    def test_that_has_expired(self, program: Any, refused: Refused, version: Any) -> None:
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        assert program.ask(end=yesterday, version=version) is None
        refused("ratls.validity")

    def test_that_is_not_valid_yet(self, program: Any, refused: Refused) -> None:
        assert program.ask(begin=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) is None
        refused("ratls.validity")

    def test_without_evidence(self, program: Any, refused: Refused) -> None:
        assert program.ask(forms=()) is None
        refused("certificate.evidence")

    def test_over_a_key_of_another_kind(self, program: Any, refused: Refused) -> None:
        assert program.ask(key=ec.generate_private_key(ec.SECP521R1())) is None
        refused("ratls.key")

    def test_that_its_key_did_not_sign(self, program: Any, refused: Refused) -> None:
        assert program.ask(signer=ec.generate_private_key(ec.SECP384R1())) is None
        refused("ratls.container")

    @VERSIONS
    def test_beside_another(self, program: Any, refused: Refused, version: Any) -> None:
        other = program.make(ec.generate_private_key(ec.SECP256R1()), program.enclave.quote)
        assert program.ask(others=(other,), version=version) is None
        refused("ratls.container")

    @VERSIONS
    def test_under_the_owners_own_authority(self, program: Any, refused: Refused, authority: Any, version: Any) -> None:
        chain = authority.issue_server(program.key.public_key(), "digits.example.test", now=int(time.time()))
        issued = x509.load_pem_x509_certificate(chain)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            program.ask(certificate=issued, version=version)
        refused("tls.handshake")

    @VERSIONS
    def test_that_is_missing(self, program: Any, refused: Refused, version: Any) -> None:
        context = ssl.create_default_context(cadata=program.owner.authority.certificate_pem.decode())
        context.minimum_version = context.maximum_version = version
        # Under TLS 1.3 the client is told only after its own handshake is done.
        with pytest.raises((ssl.SSLError, ConnectionError)), program.connect(context) as tls:
            program.receive(tls)
        refused("tls.handshake")

    @VERSIONS
    def test_replayed_without_its_key(self, program: Any, refused: Refused, version: Any) -> None:
        own, point = ec.generate_private_key(ec.SECP384R1()), (Encoding.X962, PublicFormat.UncompressedPoint)
        # OpenSSL compares public halves only: one's own private half under the victim's public half passes there.
        der = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        chimera = der.replace(own.public_key().public_bytes(*point), program.key.public_key().public_bytes(*point))
        assert chimera != der
        with pytest.raises((ssl.SSLError, ConnectionError)):
            program.ask(key_der=chimera, version=version)
        assert "bad signature" in refused("tls.handshake")["found"]
