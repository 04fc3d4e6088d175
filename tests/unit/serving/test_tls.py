from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.errors import InputError
from ensconce.serving.tls import ServingCertificate, TlsContext


def pair(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


def presented(context: TlsContext) -> x509.Certificate:
    """The certificate that a TLS handshake in memory shows."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[int] = set()
    while len(done) < 2:
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
    der = sides[0].getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def test_the_certificate_is_presented_and_replaced() -> None:
    certificate = ServingCertificate(*pair("one"))
    for context in (certificate.ssl_context, certificate.http2_context):
        assert presented(context).subject.rfc4514_string() == "CN=one"
    certificate.replace(*pair("two"))
    for context in (certificate.ssl_context, certificate.http2_context):
        assert presented(context).subject.rfc4514_string() == "CN=two"


def test_the_key_touches_no_file_and_no_handle_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    ServingCertificate(*pair("one"))
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("private", "chain"),
    [
        (pair("a")[0], pair("b")[1]),
        (b"", pair("b")[1]),
        (pair("a")[0], b""),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", pair("b")[1]),
        (pair("a")[0], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
)
def test_what_is_no_pair_is_refused_and_the_old_one_stays(private: bytes, chain: bytes) -> None:
    certificate = ServingCertificate(*pair("old"))
    with pytest.raises(InputError) as caught:
        certificate.replace(private, chain)
    assert caught.value.check == "serving.certificate"
    assert presented(certificate.ssl_context).subject.rfc4514_string() == "CN=old"
