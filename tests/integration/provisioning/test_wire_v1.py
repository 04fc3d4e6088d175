"""Gramine's protocol, spoken to a running server as its library speaks it: Python's own TLS, no ALPN, one request."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ensconce.appraisal.policy import Identity, Policy, WireV1
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import IntegrityError
from ensconce.evidence.report import Attributes
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.provisioning.limits import Limits

SERVER_NAME = "provisioning.digits.example.test"
REQUEST = b"SECRET_PROVISION_RA_TLS_REQUEST_V1\x00"
RESPONSE = b"SECRET_PROVISION_RA_TLS_RESPONSE_V1:\x00"
KEY = b"first wrap key 1"

P384 = ec.generate_private_key(ec.SECP384R1())
KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": P384,
    "RSA-3072": rsa.generate_private_key(65537, 3072),
}
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])

Refused = Callable[..., Mapping[str, Any]]


@pytest.fixture
def policy(vendor: SimulatedVendor) -> Policy:
    def identity(name: str, number: int, secret: str, form: Any) -> Identity:
        receives = secret if secret.startswith("secret/") else secret.rpartition("/")[0]
        return Identity(
            name=name, mr_enclave=bytes([number]) * 32, receives=(receives,), wire_v1=WireV1(secret=secret, form=form)
        )

    return Policy(
        roots=(vendor.root_name,),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        identities=(
            identity("program", 0x11, "model/digits/1", "raw"),
            identity("old program", 0x22, "model/digits/1", "hex"),
            identity("licensed", 0x33, "secret/licence", "text"),
            identity("hopeful", 0x44, "model/digits/9", "raw"),
            identity("wrong form", 0x55, "secret/licence", "raw"),
            Identity(name="modern", mr_enclave=b"\x66" * 32, receives=("model/digits",)),
        ),
    )


@pytest.fixture
def owner(owners: Callable[..., Any]) -> Any:
    owner = owners()
    owner.keystore.put("secret/licence", b"for one seat", kind="secret")
    return owner


@dataclasses.dataclass
class Program:
    """A program with Gramine's library, as far as the network can tell."""

    owner: Any
    enclave: Any
    make: Callable[..., x509.Certificate]
    folder: Path

    def context(
        self,
        key: Any = P384,
        forms: tuple[str, ...] = ("legacy", "tcg"),
        version: ssl.TLSVersion = TLS_1_3,
        certificate: x509.Certificate | None = None,
        others: tuple[x509.Certificate, ...] = (),
        key_der: bytes | None = None,
        **changes: Any,
    ) -> ssl.SSLContext:
        certificate = certificate or self.make(key, self.enclave.quote, forms, **changes)
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *others))
        private = key_der or key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        kind = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
        (self.folder / "client.pem").write_bytes(pem)
        (self.folder / "client.key").write_text(
            ssl.DER_cert_to_PEM_cert(private).replace("CERTIFICATE", f"{kind} PRIVATE KEY")
        )
        context = ssl.create_default_context(cadata=self.owner.authority.certificate_pem.decode())
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context

    @contextlib.contextmanager
    def connect(
        self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection(("127.0.0.1", self.owner.server.port), 30) as sock,
            (context or self.context()).wrap_socket(
                sock, server_hostname=SERVER_NAME, suppress_ragged_eofs=False, session=session
            ) as tls,
        ):
            yield tls

    def ask(self, request: bytes = REQUEST, enclave: Any = None, **how: Any) -> bytes | None:
        """The secret as it came, or None when the server said goodbye instead."""
        self.enclave = enclave or self.enclave
        with self.connect(self.context(**how)) as tls:
            tls.sendall(request)
            return receive(tls)


def receive(tls: ssl.SSLSocket) -> bytes | None:
    """All until the server's close_notify; without one, an exception."""
    data = b""
    while chunk := tls.recv(4096):
        data += chunk
    if not data:
        return None
    header, size, secret = data[:37], int.from_bytes(data[37:41], "big"), data[41:]
    assert header == RESPONSE
    assert size == len(secret)
    return secret


@pytest.fixture
def programs(
    gramine_certificate: Callable[..., x509.Certificate], enclave: Any, tmp_path: Path
) -> Callable[[Any], Program]:
    return lambda owner: Program(owner, enclave, gramine_certificate, tmp_path)


@pytest.fixture
def program(owner: Any, programs: Callable[[Any], Program]) -> Program:
    return programs(owner)


@pytest.fixture
def refused(owner: Any) -> Refused:
    """The only entry in the log, which is a refusal for this reason."""

    def check(name: str, of: Any = owner) -> Mapping[str, Any]:
        ((event, fields),) = of.wait_for_log(1)
        assert (event, fields["check"]) == ("key.refused", name), fields
        return dict(fields)

    return check


class TestReleased:
    @VERSIONS
    @pytest.mark.parametrize("kind", sorted(KEYS))
    def test_over_both_versions_with_every_key_and_form(
        self, owner: Any, program: Program, kind: str, version: Any
    ) -> None:
        forms = [("legacy",), ("meant",), ("tcg",), ("legacy", "tcg")]
        assert [program.ask(key=KEYS[kind], forms=each, version=version) for each in forms] == [KEY] * 4
        entries = owner.wait_for_log(4)
        assert [fields["evidence_form"] for _, fields in entries] == ["legacy", "legacy", "tcg", "tcg"]

    def test_as_hexadecimal_digits_to_the_older_library(self, program: Program) -> None:
        secret = program.ask(enclave=program.enclave.but(mr_enclave=b"\x22" * 32), version=TLS_1_2, forms=("legacy",))
        assert secret == KEY.hex().encode() + b"\x00"

    def test_as_text(self, program: Program) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x33" * 32)) == b"for one seat\x00"

    def test_and_recorded_with_who_it_was(self, owner: Any, program: Program, policy: Policy) -> None:
        program.ask()
        ((event, fields),) = owner.wait_for_log(1)
        assert event == "key.released"
        expected = {
            "wire": "v1",
            "key_ids": ("model/digits/1",),
            "identity": "program",
            "mr_enclave": "11" * 32,
            "policy_sha256": policy.sha256,
            "tls_key_sha256": hashlib.sha256(spki_of(P384.public_key())).hexdigest(),
            "evidence_form": "tcg",
        }
        assert {name: fields[name] for name in expected} == expected
        assert KEY.hex() not in str(fields)

    def test_beside_wire_v2_on_the_same_port(self, owner: Any, program: Program, enclave: Any) -> None:
        assert program.ask() == KEY
        assert owner.provision(enclave).secrets == {"model/digits/1": KEY}
        assert [fields["wire"] for _, fields in owner.wait_for_log(2)] == ["v1", "v2"]

    def test_in_pieces_however_they_come(self, program: Program) -> None:
        with program.connect() as tls:
            for at in range(len(REQUEST)):
                tls.sendall(REQUEST[at : at + 1])
            assert receive(tls) == KEY


class TestRequest:
    @pytest.mark.parametrize(
        "request_bytes",
        [REQUEST.replace(b"V1", b"V2"), REQUEST[:-1] + b"\n", bytes(35), REQUEST + b"more", b"GET / HTTP/1.1\r\n" * 3],
    )
    def test_that_is_another(self, program: Program, refused: Refused, request_bytes: bytes) -> None:
        assert program.ask(request_bytes) is None
        fields = refused("provisioning.request")
        assert fields["wire"] == "v1"
        assert "mr_enclave" not in fields

    def test_that_ends_early(self, program: Program, refused: Refused) -> None:
        with program.connect() as tls:
            tls.sendall(REQUEST[:-1])
            with contextlib.suppress(OSError):
                tls.unwrap()
        refused("tls.closed")

    def test_that_takes_too_long(self, owners: Any, programs: Any, refused: Refused) -> None:
        owner = owners(limits=Limits(handshake_time=3600.0, exchange_time=1.0, closing_time=0.5))
        with programs(owner).connect() as tls:
            tls.sendall(REQUEST[:20])
            assert receive(tls) is None
        refused("tls.timeout", owner)


class TestCertificate:
    @pytest.mark.parametrize("form", ["legacy", "tcg"])
    def test_with_the_quote_of_another(self, program: Program, refused: Refused, form: str) -> None:
        stolen = program.make(KEYS["P-256"], program.enclave.quote, (form,)).extensions[1]
        own = program.make(P384, program.enclave.quote, ())
        builder = x509.CertificateBuilder(own.issuer, own.subject, P384.public_key(), 1)
        builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)
        copied = builder.add_extension(stolen.value, False).sign(P384, hashes.SHA256())
        assert program.ask(certificate=copied) is None
        refused("ratls.report_data" if form == "legacy" else "ratls.pubkey_hash")

    def test_with_something_else_in_the_report_datas_tail(self, program: Program, refused: Refused) -> None:
        quote = program.enclave.quote
        tailed = program.make(P384, lambda data: quote(data[:32] + b"\x01" + data[33:]), ("legacy",))
        assert program.ask(certificate=tailed) is None
        refused("ratls.report_data")

    @VERSIONS
    def test_that_has_expired(self, program: Program, refused: Refused, version: Any) -> None:
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        assert program.ask(end=yesterday, version=version) is None
        refused("ratls.validity")

    def test_that_is_not_valid_yet(self, program: Program, refused: Refused) -> None:
        assert program.ask(begin=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) is None
        refused("ratls.validity")

    def test_without_evidence(self, program: Program, refused: Refused) -> None:
        assert program.ask(forms=()) is None
        refused("certificate.evidence")

    def test_over_a_key_of_another_kind(self, program: Program, refused: Refused) -> None:
        assert program.ask(key=ec.generate_private_key(ec.SECP521R1())) is None
        refused("ratls.key")

    def test_that_its_key_did_not_sign(self, program: Program, refused: Refused) -> None:
        assert program.ask(signer=ec.generate_private_key(ec.SECP384R1())) is None
        refused("ratls.container")

    @VERSIONS
    def test_beside_another(self, program: Program, refused: Refused, version: Any) -> None:
        other = program.make(KEYS["P-256"], program.enclave.quote)
        assert program.ask(others=(other,), version=version) is None
        refused("ratls.container")

    @VERSIONS
    def test_under_the_owners_own_authority(
        self, program: Program, refused: Refused, authority: Any, version: Any
    ) -> None:
        chain = authority.issue_server(P384.public_key(), "digits.example.test", now=int(time.time()))
        issued = x509.load_pem_x509_certificate(chain)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            program.ask(certificate=issued, version=version)
        refused("tls.handshake")

    @VERSIONS
    def test_that_is_missing(self, program: Program, refused: Refused, version: Any) -> None:
        context = ssl.create_default_context(cadata=program.owner.authority.certificate_pem.decode())
        context.minimum_version = context.maximum_version = version
        # Under TLS 1.3 the client is told only after its own handshake is done.
        with pytest.raises((ssl.SSLError, ConnectionError)), program.connect(context) as tls:
            receive(tls)
        refused("tls.handshake")

    @VERSIONS
    def test_replayed_without_its_key(self, program: Program, refused: Refused, version: Any) -> None:
        own, point = ec.generate_private_key(ec.SECP384R1()), (Encoding.X962, PublicFormat.UncompressedPoint)
        # OpenSSL compares public halves only: one's own private half under the victim's public half passes there.
        der = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        chimera = der.replace(own.public_key().public_bytes(*point), P384.public_key().public_bytes(*point))
        assert chimera != der
        with pytest.raises((ssl.SSLError, ConnectionError)):
            program.ask(key_der=chimera, version=version)
        assert "bad signature" in refused("tls.handshake")["found"]


class TestPolicy:
    def test_that_does_not_opt_in_for_this_identity(self, program: Program, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x66" * 32)) is None
        fields = refused("policy.wire_v1")
        assert (fields["identity"], fields["mr_enclave"]) == ("modern", "66" * 32)

    def test_that_does_not_name_the_enclave(self, program: Program, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x99" * 32)) is None
        refused("policy.mr_enclave")

    def test_that_does_not_accept_debug(self, program: Program, refused: Refused) -> None:
        debug = Attributes(Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG, 3)
        assert program.ask(enclave=program.enclave.but(attributes=debug)) is None
        refused("policy.debug")

    def test_that_does_not_name_the_root(self, program: Program, refused: Refused) -> None:
        stranger = dataclasses.replace(program.enclave, vendor=SimulatedVendor(b"\x01" * 32, int(time.time())))
        assert program.ask(enclave=stranger) is None
        refused("policy.root")

    def test_that_names_a_key_that_is_not_there(self, program: Program, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x44" * 32)) is None
        refused("key.unknown")

    def test_that_names_a_key_that_was_retired(self, owner: Any, program: Program, refused: Refused) -> None:
        owner.keystore.retire("model/digits/1")
        assert program.ask() is None
        assert refused("key.retired")["identity"] == "program"

    def test_that_names_a_form_that_the_secret_does_not_have(self, program: Program, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x55" * 32)) is None
        assert refused("policy.wire_v1")["found"] == "12 bytes"

    def test_that_asks_for_less_often(self, owners: Any, programs: Any) -> None:
        owner = owners(limits=Limits(identity_burst=1, identity_rate=0.001, closing_time=0.5))
        program = programs(owner)
        assert [program.ask(), program.ask()] == [KEY, None]
        assert owner.wait_for_log(2)[1][1]["check"] == "provisioning.rate"


class TestWithoutAnyOptIn:
    @pytest.fixture
    def strict(self, owners: Any, policy: Policy) -> Any:
        return owners(dataclasses.replace(policy, identities=policy.identities[-1:]))

    def test_tls_1_2_is_not_offered(self, strict: Any, programs: Any, refused: Refused) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            programs(strict).ask(version=TLS_1_2)
        refused("tls.handshake", strict)

    def test_tls_1_3_without_alpn_gets_nothing(self, strict: Any, programs: Any, refused: Refused) -> None:
        assert programs(strict).ask() is None
        fields = refused("policy.wire_v1", strict)
        assert fields["wire"] == "v1"
        assert "no identity" in fields["problem"]


class TestNothingLeavesUnrecorded:
    class Full:
        """A log on a full disk."""

        def append(self, event: str, **fields: Any) -> None:
            raise IntegrityError("audit.write", "the disk is full")

    def test_a_log_that_fails(self, owners: Any, programs: Any) -> None:
        assert programs(owners(audit=self.Full())).ask() is None


class TestProtocolChoice:
    def test_other_protocols_get_an_alert(self, program: Program, refused: Refused) -> None:
        context = program.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"), program.connect(context):
            pass
        assert refused("tls.alpn")["found"] == "b'h2, http/1.1'"

    def test_wire_v2_is_not_spoken_over_tls_1_2(self, program: Program, refused: Refused) -> None:
        context = program.context(version=TLS_1_2)
        context.set_alpn_protocols(["ensconce/1"])
        with program.connect(context) as tls:
            tls.sendall(REQUEST)
            assert receive(tls) is None
        refused("tls.version")


class TestResumption:
    """A resumed session would carry an identity over from an earlier handshake."""

    @VERSIONS
    def test_leads_to_a_full_handshake(self, owner: Any, program: Program, version: Any) -> None:
        context = program.context(version=version)
        with program.connect(context) as tls:
            tls.sendall(REQUEST)
            assert receive(tls) == KEY
            session = tls.session
        assert session is not None
        with program.connect(context, session) as tls:
            assert not tls.session_reused
            tls.sendall(REQUEST)
            assert receive(tls) == KEY
        assert len(owner.wait_for_log(2)) == 2

    @VERSIONS
    def test_is_not_offered(self, program: Program, version: Any) -> None:
        """Gramine 1.8 fails when it is sent a ticket; others, whose certificate is in it, would read 10 kB more."""
        with program.connect(program.context(version=version)) as tls:
            tls.sendall(REQUEST)
            assert receive(tls) == KEY
            assert tls.session is not None
            assert not tls.session.has_ticket


class TestManyAtOnce:
    def test_a_silent_client_holds_up_nobody(self, program: Program) -> None:
        with program.connect() as silent, program.connect() as slow:
            slow.sendall(REQUEST[:5])
            assert program.ask() == KEY
            silent.sendall(REQUEST)
            assert receive(silent) == KEY
