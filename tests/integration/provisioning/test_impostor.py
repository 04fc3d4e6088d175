"""The enclave's side against servers that are not the owner's, and against answers that do not fit."""

from __future__ import annotations

import datetime as dt
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.evidence.certificate import evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.spki import spki_of
from ensconce.provisioning.client import provision
from ensconce.provisioning.frames import read_frame, write_frame
from ensconce.provisioning.messages import Challenge, ErrorFields, Grant, Refusal, RefusedKey, encode, parse_request
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.context import server_context
from ensconce.ratls.stream import TlsStream
from ensconce.ratls.verify import SignedRequest, read_signed_request

DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.digits.example.test"

Answer = Callable[[SignedRequest], bytes]


class _AsGiven(random.Random):
    """Leaves everything in its order."""

    def sample(self, population: Sequence[Any], k: int, **_: Any) -> list[Any]:
        return list(population)[:k]


class Impostor:
    """A server with any certificate and any answer; one connection, then it is gone."""

    def __init__(self, context: SSL.Context, challenge: bytes, answer: Answer) -> None:
        self._context, self._challenge, self._answer = context, challenge, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with TlsStream(self._context, sock, deadline=time.monotonic() + 30) as stream:
            try:
                stream.handshake()
                write_frame(stream, self._challenge)
                self.heard.append(read_frame(stream))
                request = parse_request(self.heard[0])
                write_frame(stream, self._answer(read_signed_request(request.certificate_request)))
                stream.finish()
            except EnsconceError:
                pass

    def stop(self) -> None:
        self._listener.close()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def impostor(authority: CertificateAuthority) -> Iterator[Callable[..., Impostor]]:
    started: list[Impostor] = []

    def start(
        answer: Answer = lambda request: b"{}",
        challenge: bytes = encode(Challenge(nonce=bytes(32))),
        authority: CertificateAuthority = authority,
        name: str = SERVER_NAME,
        context: SSL.Context | None = None,
    ) -> Impostor:
        if context is None:
            key = ec.generate_private_key(ec.SECP256R1())
            chain = authority.issue_server(key.public_key(), name, now=int(time.time()))
            context = server_context(key, x509.load_pem_x509_certificate(chain))
        started.append(Impostor(context, challenge, answer))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def ask(server: Impostor, authority: CertificateAuthority, enclave: Any, *models: tuple[str, int]) -> Any:
    return provision(
        [server.address],
        SERVER_NAME,
        authority.certificate_pem,
        enclave.quote,
        DOMAIN,
        models or (("digits", 1),),
        timeout=30.0,
    )


def certificate(authority: CertificateAuthority, key: ec.EllipticCurvePrivateKey, **changes: Any) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    purpose = changes.get("purpose", ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(changes.get("begin", now - dt.timedelta(hours=1)))
        .not_valid_after(changes.get("end", now + dt.timedelta(hours=1)))
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if changes.get("names", True):
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    return builder.sign(changes.get("signer", authority.key), hashes.SHA256())


class TestServers:
    """Each is found out before the enclave quotes anything for it."""

    def refused(self, server: Impostor, authority: CertificateAuthority, enclave: Any) -> EvidenceError:
        with pytest.raises(EvidenceError) as caught:
            ask(server, authority, enclave)
        assert caught.value.check == "provisioning.server_certificate"
        assert SERVER_NAME in (caught.value.rule or "")
        assert len(enclave.quoted) == 1  # for its own certificate request, which stays here
        assert server.heard == []
        return caught.value

    def test_another_authority(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        other = CertificateAuthority.create("somebody else", int(time.time()))
        error = self.refused(impostor(authority=other), authority, enclave)
        assert "somebody else" in (error.found or "")

    def test_an_authority_of_the_same_name(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        other = CertificateAuthority.create("the owner", int(time.time()))
        self.refused(impostor(authority=other), authority, enclave)

    def test_another_name(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        # Such as a replica's own certificate, which is under the same authority.
        for name in (DOMAIN, "x." + SERVER_NAME, "*.digits.example.test.evil"):
            enclave.quoted.clear()
            self.refused(impostor(name=name), authority, enclave)

    @pytest.mark.parametrize(
        "changes",
        [
            {"end": dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)},
            {"begin": dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)},
            {"purpose": ExtendedKeyUsageOID.CLIENT_AUTH},
            {"names": False},
            {"signer": ec.generate_private_key(ec.SECP256R1())},
        ],
        ids=["expired", "not yet valid", "for clients", "name in the subject alone", "another signature"],
    )
    def test_certificates_that_do_not_hold(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any, changes: dict[str, Any]
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        context = server_context(key, certificate(authority, key, **changes))
        self.refused(impostor(context=context), authority, enclave)

    def test_an_impostor_is_not_made_good_by_the_next_server(
        self, impostor: Any, owner: Any, authority: CertificateAuthority, enclave: Any
    ) -> None:
        other = CertificateAuthority.create("somebody else", int(time.time()))
        with pytest.raises(EvidenceError) as caught:
            owner.provision(enclave, servers=[impostor(authority=other).address, owner.address], chance=_AsGiven())
        assert caught.value.check == "provisioning.server_certificate"

    def test_another_protocol(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = authority.issue_server(key.public_key(), SERVER_NAME, now=int(time.time()))
        context = server_context(key, x509.load_pem_x509_certificate(chain))
        context.set_alpn_select_callback(lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
        with pytest.raises(UnreachableError) as caught:
            ask(impostor(context=context), authority, enclave)
        assert caught.value.check == "tls.alpn"
        assert len(enclave.quoted) == 1

    def test_an_older_tls(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = authority.issue_server(key.public_key(), SERVER_NAME, now=int(time.time()))
        context = server_context(key, x509.load_pem_x509_certificate(chain))
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with pytest.raises(UnreachableError) as caught:
            ask(impostor(context=context), authority, enclave)
        assert caught.value.check == "tls.handshake"


class TestChallenges:
    @pytest.mark.parametrize(
        "challenge",
        [
            b"{}",
            b"[]",
            b'{"type":"challenge"}',
            b'{"type":"challenge","nonce":""}',
            b'{"type":"challenge","nonce":"AAAA"}',
            b'{"type":"challenge","nonce":"' + b"A" * 43 + b'=","more":1}',
            b'{"type":"grant","secrets":{},"certificate_chain":"x","refused":[]}',
        ],
    )
    def test_what_is_no_challenge_gets_no_quote(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any, challenge: bytes
    ) -> None:
        with pytest.raises(UnreachableError) as caught:
            ask(impostor(challenge=challenge), authority, enclave)
        assert caught.value.check == "provisioning.message"
        assert len(enclave.quoted) == 1

    def test_a_refusal_instead_of_a_challenge_is_understood(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any
    ) -> None:
        error = ErrorFields(check="server.busy", problem="too many requests", remedy="wait")
        with pytest.raises(UnreachableError) as caught:
            ask(impostor(challenge=encode(Refusal(kind="unavailable", error=error))), authority, enclave)
        assert (caught.value.check, caught.value.remedy) == ("server.busy", "wait")


class TestAnswers:
    """A server under the owner's authority that answers wrongly: nothing of the answer is used."""

    def grant(
        self,
        authority: CertificateAuthority,
        request: SignedRequest,
        *,
        signer: CertificateAuthority | None = None,
        key: Any = None,
        domain: str = DOMAIN,
        evidence: Any = ...,
        **changes: Any,
    ) -> bytes:
        chain = (signer or authority).issue_server(
            key or request.public_key,
            domain,
            now=int(time.time()),
            evidence=request.extension if evidence is ... else evidence,
        )
        fields: dict[str, Any] = {
            "secrets": {"model/digits/1": b"0123456789abcdef"},
            "certificate_chain": chain.decode(),
            "refused": (),
        }
        return encode(Grant(**(fields | changes)))

    def test_the_right_one_is_taken(self, impostor: Any, authority: CertificateAuthority, enclave: Any) -> None:
        server = impostor(lambda request: self.grant(authority, request))
        assert ask(server, authority, enclave).secrets == {"model/digits/1": b"0123456789abcdef"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"secrets": {}},
            {"secrets": {"model/digits/2": b"0123456789abcdef"}},
            {"secrets": {"model/digits/1": b"0123456789abcdef", "model/digits/2": b"0123456789abcdef"}},
            {"certificate_chain": "nonsense"},
            {"domain": "other.test"},
            {"key": ec.generate_private_key(ec.SECP256R1()).public_key()},
            {"signer": CertificateAuthority.create("the owner", int(time.time()))},
            {"evidence": None},
            {"evidence": evidence_extension(b"another quote", encode_claims(b"another key"))},
            {
                "refused": (
                    RefusedKey(key_id="model/digits/1", error=ErrorFields(check="key.retired", problem="retired")),
                )
            },
        ],
        ids=[
            "nothing",
            "another key id",
            "one too many",
            "no certificate",
            "another name",
            "another public key",
            "another authority",
            "no evidence",
            "other evidence",
            "granted and refused",
        ],
    )
    def test_answers_that_do_not_fit_are_refused(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any, changes: dict[str, Any]
    ) -> None:
        server = impostor(lambda request: self.grant(authority, request, **changes))
        with pytest.raises(EvidenceError) as caught:
            ask(server, authority, enclave)
        assert caught.value.check == "provisioning.grant"
        assert "0123456789abcdef" not in str(caught.value)

    @pytest.mark.parametrize(
        "answer",
        [
            b'{"type":"grant","secrets":{"model/digits/1":"MDEyMzQ1Njc4OWFiY2RlZg=="},"certificate_chain":"x","z":1}',
            b'{"type":"grant","secrets":{"model/digits/1":"MDEyMzQ1Njc4OWFiY2RlZg"},"certificate_chain":"x"}',
            b'{"type":"grant","secrets":{"ca/root":"MDEyMzQ1Njc4OWFiY2RlZg=="},"certificate_chain":"x"}',
            b'{"type":"grant","secrets":{"model/digits/1":"MDEyMzQ1Njc4OWFiY2RlZg=="}}',
            b'{"type":"refusal","kind":"whim","error":{"check":"a.b","problem":"x"}}',
            b'{"type":"refusal","kind":"policy","error":{"check":"a b","problem":"x"}}',
            b'{"type":"refusal","kind":"policy","error":{"check":"a.b"}}',
        ],
    )
    def test_malformed_answers_are_refused_and_not_repeated(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any, answer: bytes
    ) -> None:
        with pytest.raises(UnreachableError) as caught:
            ask(impostor(lambda request: answer), authority, enclave)
        assert caught.value.check == "provisioning.message"
        told = repr(caught.value) + str(caught.value.__cause__) + str(caught.value.fields())
        assert "MDEyMzQ1Njc4OWFi" not in told
        assert "0123456789abcdef" not in told

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("evidence", EvidenceError),
            ("policy", RefusedError),
            ("protocol", UnreachableError),
            ("unavailable", UnreachableError),
        ],
    )
    def test_refusals_become_errors_with_the_same_fields(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any, kind: Any, expected: type[EnsconceError]
    ) -> None:
        error = ErrorFields(check="a.b_c", problem="p", found="f", rule="r", remedy="m")
        with pytest.raises(expected) as caught:
            ask(impostor(lambda request: encode(Refusal(kind=kind, error=error))), authority, enclave)
        fields = caught.value.fields()
        assert fields == {"check": "a.b_c", "problem": "p", "found": "f", "rule": "r", "remedy": "m"}

    def test_the_key_in_the_request_is_the_one_of_the_connection(
        self, impostor: Any, authority: CertificateAuthority, enclave: Any
    ) -> None:
        seen: list[bytes] = []

        def answer(request: SignedRequest) -> bytes:
            seen.append(request.spki_der)
            return self.grant(authority, request)

        provisioned = ask(impostor(answer), authority, enclave)
        assert seen == [spki_of(provisioned.private_key.public_key())]
