"""TLS: which handshakes and certificates the server takes, and which it refuses."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto

from ensconce.addresses import Address
from ensconce.errors import UnreachableError
from ensconce.provisioning.frames import read_frame
from ensconce.ratls.async_stream import HANDSHAKE_ALLOWANCE
from ensconce.ratls.context import ALPN, client_context, exporter
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream

SERVER_NAME = "provisioning.digits.example.test"


def self_signed(key: Any, signer: Any = None, issuer: str = "x", **dates: dt.datetime) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dates.get("begin", now - dt.timedelta(days=1)))
        .not_valid_after(dates.get("end", now + dt.timedelta(days=1)))
        .sign(signer or key, hashes.SHA256())
    )


def of_version_8(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key container, DER, that says it is of X.509 version 8."""

    def tagged(tag: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([tag, size] if size < 128 else [tag, 0x82, size >> 8, size & 0xFF]) + content

    body = make_key_container(key).tbs_certificate_bytes.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    signature = tagged(0x03, b"\0" + key.sign(body, ec.ECDSA(hashes.SHA256())))
    return tagged(0x30, body + ecdsa_with_sha256 + signature)


def context_with(owner: Any, key: Any, certificate: x509.Certificate) -> SSL.Context:
    return client_context(key, certificate, owner.authority.certificate)


def with_exponent(exponent: int) -> rsa.RSAPrivateKey:
    """An RSA key that nobody makes by accident."""
    while True:
        made = rsa.generate_private_key(65537, 2048).private_numbers()
        order = (made.p - 1) * (made.q - 1)
        if math.gcd(exponent, order) == 1:
            break
    d = pow(exponent, -1, order)
    public = rsa.RSAPublicNumbers(exponent, made.p * made.q)
    parts = (made.p, made.q, d, d % (made.p - 1), d % (made.q - 1), made.iqmp, public)
    return rsa.RSAPrivateNumbers(*parts).private_key(unsafe_skip_rsa_key_validation=True)


def drain(sock: socket.socket) -> None:
    """Read until the other side hangs up, politely or not."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(4096):
            pass


class TestTls:
    """With Python's own TLS, which shares no code with ours."""

    def connect(
        self, owner: Any, tmp_path: Path, *, alpn: list[str] | None, container: bool = True, **versions: Any
    ) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=owner.authority.certificate_pem.decode())
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        for name, value in versions.items():
            setattr(context, name, value)
        if container:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (tmp_path / "client.pem").write_bytes(pem + make_key_container(key).public_bytes(Encoding.PEM))
            context.load_cert_chain(tmp_path / "client.pem")
        raw = socket.create_connection(Address("127.0.0.1", owner.server.port), 30)
        return context.wrap_socket(raw, server_hostname=SERVER_NAME)

    def test_a_stock_client_is_challenged(self, owner: Any, tmp_path: Path) -> None:
        with self.connect(owner, tmp_path, alpn=["ensconce/1"]) as tls:
            assert tls.version() == "TLSv1.3"
            assert tls.selected_alpn_protocol() == "ensconce/1"
            size = int.from_bytes(tls.recv(4), "big")
            challenge = json.loads(tls.recv(size))
            assert challenge["type"] == "challenge"
            assert set(challenge) == {"type", "nonce"}
            tls.sendall((2).to_bytes(4, "big") + b"{}")
            size = int.from_bytes(tls.recv(4), "big")
            refusal = json.loads(tls.recv(size))
            assert refusal["type"] == "refusal"
            assert refusal["kind"] == "protocol"
            assert refusal["error"]["check"] == "provisioning.message"
            assert tls.recv(1) == b""

    def test_tls_1_2_is_refused(self, owner: Any, tmp_path: Path) -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            self.connect(owner, tmp_path, alpn=["ensconce/1"], maximum_version=ssl.TLSVersion.TLSv1_2)
        [(event, fields)] = owner.wait_for_log(1)
        assert (event, fields["check"], fields["found"]) == ("key.refused", "tls.handshake", "unsupported protocol")

    def test_without_alpn_there_is_no_conversation(self, owner: Any, tmp_path: Path) -> None:
        with self.connect(owner, tmp_path, alpn=None) as tls:
            assert tls.selected_alpn_protocol() is None
            assert tls.recv(1) == b""
        [(event, fields)] = owner.wait_for_log(1)
        # That is how Gramine's programs come.
        assert (event, fields["check"]) == ("key.refused", "policy.wire_v1")

    @pytest.mark.parametrize("alpn", [["h2"], ["ensconce/2", "http/1.1"], ["ensconce/10"]])
    def test_without_ours_among_them_there_is_an_alert(self, owner: Any, tmp_path: Path, alpn: list[str]) -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            self.connect(owner, tmp_path, alpn=alpn)
        [(event, fields)] = owner.wait_for_log(1)
        assert (event, fields["check"], fields["wire"]) == ("key.refused", "tls.alpn", "none")

    def test_our_alpn_among_others_is_found(self, owner: Any, tmp_path: Path) -> None:
        with self.connect(owner, tmp_path, alpn=["h2", "ensconce/2", "ensconce/1"]) as tls:
            assert tls.selected_alpn_protocol() == "ensconce/1"

    def test_without_a_client_certificate_there_is_no_conversation(self, owner: Any, tmp_path: Path) -> None:
        with (
            self.connect(owner, tmp_path, alpn=["ensconce/1"], container=False) as tls,
            pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        ):
            tls.recv(1)
        [(event, fields)] = owner.wait_for_log(1)
        assert (event, fields["check"]) == ("key.refused", "tls.handshake")

    def test_what_is_no_tls_is_refused(self, owner: Any) -> None:
        for bytes_ in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(300), b"SECRET_PROVISION_RA_TLS_REQUEST_V1\0"):
            with socket.create_connection(Address("127.0.0.1", owner.server.port), 30) as sock:
                sock.sendall(bytes_)
                sock.shutdown(socket.SHUT_WR)
                drain(sock)
        assert {fields["check"] for _, fields in owner.wait_for_log(3)} <= {"tls.handshake", "tls.closed"}

    def test_knocking_is_not_recorded(self, owner: Any, enclave: Any) -> None:
        for _ in range(3):
            socket.create_connection(Address("127.0.0.1", owner.server.port), 30).close()
        owner.provision(enclave)
        assert [event for event, _ in owner.log()] == ["key.released"]


class TestClientCertificates:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: (ec.generate_private_key(ec.SECP384R1()), None),
            lambda: (rsa.generate_private_key(65537, 2048), None),
        ],
        ids=["P-384", "RSA"],
    )
    def test_keys_of_other_kinds_are_refused(self, owner: Any, raw: Any, make: Callable[[], Any]) -> None:
        key, _ = make()
        client = raw(key=key, context=context_with(owner, key, self_signed(key)), hello=False)
        with pytest.raises(UnreachableError):
            client.answer()
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "ratls.container"

    @pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")
    def test_a_certificate_that_openssl_reads_and_cryptography_does_not_is_refused(self, owner: Any, raw: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        context = context_with(owner, key, make_key_container(key))
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, of_version_8(key)))
        client = raw(key=key, context=context, hello=False)
        with pytest.raises(UnreachableError):
            client.answer()
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "ratls.container"

    def test_certificates_that_another_key_signed_are_refused(self, owner: Any, raw: Any) -> None:
        key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        for certificate in (self_signed(key, other), self_signed(key, other, issuer="somebody")):
            client = raw(key=key, context=context_with(owner, key, certificate), hello=False)
            with pytest.raises(UnreachableError):
                client.answer()
        assert {fields["check"] for _, fields in owner.wait_for_log(2)} <= {"ratls.container", "tls.handshake"}

    def test_a_certificate_under_the_owners_own_authority_is_no_key_container(
        self, owner: Any, raw: Any, enclave: Any
    ) -> None:
        provisioned = owner.provision(enclave)
        key = provisioned.private_key
        leaf = x509.load_pem_x509_certificate(provisioned.certificate_chain)
        client = raw(key=key, context=context_with(owner, key, leaf), hello=False)
        with pytest.raises(UnreachableError):
            client.answer()

    @pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")
    def test_a_key_whose_signatures_take_long_to_check_is_refused_in_the_handshake(self, owner: Any, raw: Any) -> None:
        # OpenSSL takes exponents of as many bits as 3072: five milliseconds for each of two signatures.
        key = with_exponent(2**40 + 15)
        with pytest.raises(UnreachableError):
            raw(key=key, context=context_with(owner, key, self_signed(key)))
        [(_, fields)] = owner.wait_for_log(1)
        assert (fields["check"], fields["found"]) == ("tls.handshake", "certificate verify failed")

    def test_keys_are_exchanged_over_a_few_groups_alone(self, owner: Any, raw: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        for groups, taken in ((b"P-384", True), (b"X25519", True), (b"ffdhe3072", False), (b"P-521", False)):
            context = context_with(owner, key, make_key_container(key))
            assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
            with contextlib.nullcontext() if taken else pytest.raises(UnreachableError):
                raw(key=key, context=context)
        assert {fields["check"] for _, fields in owner.wait_for_log(2)} == {"tls.handshake"}

    def test_a_handshake_has_an_allowance_of_its_own(self, owner: Any, raw: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        context = context_with(owner, key, make_key_container(key))
        extra = self_signed(key)
        for _ in range(HANDSHAKE_ALLOWANCE // len(extra.public_bytes(Encoding.DER)) + 1):
            context.add_extra_chain_cert(extra)
        client = raw(key=key, context=context, hello=False)
        with pytest.raises(UnreachableError):
            client.answer()
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "tls.excess"
        assert "handshake" in fields["rule"]

    def test_more_than_one_certificate_is_refused(self, owner: Any, raw: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        context = context_with(owner, key, make_key_container(key))
        context.add_extra_chain_cert(self_signed(ec.generate_private_key(ec.SECP256R1())))
        client = raw(key=key, context=context, hello=False)
        with pytest.raises(UnreachableError):
            client.answer()
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] in ("ratls.container", "tls.handshake")

    def test_expired_containers_are_refused(self, owner: Any, raw: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        certificate = self_signed(key, begin=past, end=past + dt.timedelta(days=1))
        client = raw(key=key, context=context_with(owner, key, certificate), hello=False)
        with pytest.raises(UnreachableError):
            client.answer()


def test_no_session_is_resumed(owner: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    context = client_context(key, make_key_container(key), owner.authority.certificate)
    # A client that would like to resume.
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    secrets = set()
    session = None
    for _ in range(3):
        sock = socket.create_connection(Address("127.0.0.1", owner.server.port), 30)
        stream = TlsStream(context, sock, deadline=time.monotonic() + 30, server_name=SERVER_NAME)
        if session is not None:
            stream.connection.set_session(session)
        stream.handshake()
        read_frame(stream)  # whatever tickets there are have been read with it
        assert not SSL._lib.SSL_session_reused(stream.connection._ssl)
        session = stream.connection.get_session()
        secrets.add(exporter(stream.connection))
        stream.close()
    assert len(secrets) == 3


def test_the_exporter_is_that_of_rfc_9266(raw: Any) -> None:
    connection = raw().stream.connection
    assert exporter(connection) == connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    # RFC 8446, section 7.5: in TLS 1.3 no context and an empty one are the same.
    assert exporter(connection) == connection.export_keying_material(b"EXPORTER-Channel-Binding", 32)
    assert len(exporter(connection)) == 32


def test_alpn_is_what_the_documents_say() -> None:
    assert ALPN == b"ensconce/1"
