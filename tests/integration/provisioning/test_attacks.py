"""Attacks on the provisioning server, over real TLS and with real simulated quotes: no key, and an entry in the log."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from OpenSSL import crypto

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy_tcb import StatusUntil
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EvidenceError, InputError, IntegrityError, RefusedError, UnreachableError
from ensconce.evidence.certificate import evidence_extension, read_request
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.report import Attributes
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_certificate_request, make_key_container

DOMAIN = "digits.example.test"


def refused_with(owner: Any, check: str) -> dict[str, Any]:
    """The log's only entry, which is a refusal for this reason."""
    [(event, fields)] = owner.wait_for_log(1)
    assert (event, fields["check"]) == ("key.refused", check)
    return dict(fields)


def request_with(key: ec.EllipticCurvePrivateKey, quote: bytes, claims: bytes, domain: str = DOMAIN) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=True)
    builder = builder.add_extension(evidence_extension(quote, claims), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


class TestFreshness:
    def test_the_honest_way_works(self, raw: Any, enclave: Any) -> None:
        client = raw()
        request = client.request(enclave)
        assert client.ask(enclave.quote(client.binding(request)), request).secrets

    def test_a_quote_of_an_earlier_connection_is_refused(self, raw: Any, owner: Any, enclave: Any) -> None:
        first = raw()
        request = first.request(enclave)
        quote = enclave.quote(first.binding(request))
        # The very same enclave key and request: only nonce and channel are new.
        again = raw(key=first.key)
        with pytest.raises(EvidenceError) as caught:
            again.ask(quote, request)
        assert caught.value.check == "provisioning.channel_binding"
        refused_with(owner, "provisioning.channel_binding")

    @pytest.mark.parametrize("part", ["nonce", "exporter", "server_spki", "client_spki", "certificate_request"])
    def test_a_quote_that_binds_one_thing_less_is_refused(self, raw: Any, enclave: Any, part: str) -> None:
        client = raw()
        request = client.request(enclave)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request, **{part: os.urandom(32)})), request)
        assert caught.value.check == "provisioning.channel_binding"

    def test_evidence_relayed_from_another_live_connection_is_refused(self, raw: Any, enclave: Any) -> None:
        victim, thief = raw(), raw()
        request = victim.request(enclave)
        quote = enclave.quote(victim.binding(request))
        with pytest.raises(EvidenceError) as caught:
            thief.ask(quote, request)
        assert caught.value.check == "provisioning.key"
        # The victim's own connection is none the worse for it.
        assert victim.ask(quote, request).secrets

    def test_the_evidence_in_a_certificate_does_not_do_for_a_fresh_quote(self, raw: Any, enclave: Any) -> None:
        client = raw()
        request = client.request(enclave)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quoted[0], request)
        assert caught.value.check == "provisioning.channel_binding"

    def test_a_challenge_is_good_for_one_request(self, raw: Any, enclave: Any) -> None:
        client = raw()
        request = client.request(enclave)
        with pytest.raises(EvidenceError):
            client.ask(enclave.quote(bytes(64)), request)
        with pytest.raises(UnreachableError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "tls.closed"

    def test_no_two_challenges_are_alike(self, raw: Any) -> None:
        assert len({raw().challenge.nonce for _ in range(8)}) == 8


class TestOtherPeoplesEvidence:
    def test_a_request_for_another_key_is_refused(self, raw: Any, enclave: Any) -> None:
        victim = ec.generate_private_key(ec.SECP256R1())
        client = raw()
        request = make_certificate_request(victim, DOMAIN, enclave.quote)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "provisioning.key"

    def test_another_replicas_evidence_in_ones_own_request_is_refused(self, raw: Any, enclave: Any) -> None:
        victim = ec.generate_private_key(ec.SECP256R1())
        stolen = read_request(make_certificate_request(victim, DOMAIN, enclave.quote))
        client = raw()
        request = request_with(client.key, stolen.quote, stolen.claims.encoded)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "ratls.pubkey_hash"

    def test_another_replicas_quote_under_ones_own_claims_is_refused(self, raw: Any, enclave: Any) -> None:
        victim = ec.generate_private_key(ec.SECP256R1())
        stolen = read_request(make_certificate_request(victim, DOMAIN, enclave.quote))
        client = raw()
        request = request_with(client.key, stolen.quote, encode_claims(spki_of(client.key.public_key())))
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "ratls.report_data"

    def test_claims_with_a_nonce_that_nobody_asked_for_are_refused(self, raw: Any, enclave: Any) -> None:
        client = raw()
        claims = encode_claims(spki_of(client.key.public_key()), nonce=b"n")
        request = request_with(client.key, enclave.quote(hashlib.sha256(claims).digest() + bytes(32)), claims)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "ratls.nonce"

    @pytest.mark.parametrize("changes", [{"mr_enclave": b"\x33" * 32}, {"mr_signer": b"\x44" * 32}, {"isv_svn": 4}])
    def test_two_quotes_of_two_enclaves_are_refused(self, raw: Any, enclave: Any, changes: dict[str, Any]) -> None:
        # Each is accepted by the policy for itself.
        client = raw()
        request = client.request(enclave.but(**changes))
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "provisioning.same_enclave"

    def test_a_stolen_certificate_without_its_key_does_not_get_through_the_handshake(
        self, owner: Any, raw: Any, enclave: Any
    ) -> None:
        victim = ec.generate_private_key(ec.SECP256R1())
        own = ec.generate_private_key(ec.SECP256R1())
        # OpenSSL compares public halves only: one's own private half under the victim's public half passes there.
        der = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        point = (Encoding.X962, PublicFormat.UncompressedPoint)
        chimera = der.replace(own.public_key().public_bytes(*point), victim.public_key().public_bytes(*point))
        assert chimera != der
        context = client_context(victim, make_key_container(victim), owner.authority.certificate)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_ASN1, chimera))
        with pytest.raises(UnreachableError) as caught:
            raw(key=victim, context=context)
        assert caught.value.check in ("tls.handshake", "tls.closed")
        assert "bad signature" in refused_with(owner, "tls.handshake")["found"]

    def test_a_request_that_its_key_did_not_sign_is_refused(self, raw: Any, enclave: Any) -> None:
        client = raw()
        request = bytearray(client.request(enclave))
        request[-1] ^= 1
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(bytes(request))), bytes(request))
        assert caught.value.check == "request.signature"

    def test_a_certificate_for_another_name_is_not_issued(self, raw: Any, enclave: Any) -> None:
        client = raw()
        for domain in ("provisioning.digits.example.test", "other.test", "*.example.test"):
            client = raw()
            request = make_certificate_request(client.key, domain, enclave.quote)
            with pytest.raises(EvidenceError) as caught:
                client.ask(enclave.quote(client.binding(request)), request)
            assert caught.value.check == "provisioning.domain"

    @pytest.mark.parametrize(
        "extra",
        [
            x509.BasicConstraints(ca=True, path_length=None),
            x509.SubjectAlternativeName([x509.DNSName(DOMAIN), x509.DNSName("other.test")]),
            x509.SubjectAlternativeName([x509.DNSName(DOMAIN), x509.RFC822Name("a@other.test")]),
        ],
    )
    def test_a_request_for_more_than_one_name_is_refused(self, raw: Any, enclave: Any, extra: Any) -> None:
        client = raw()
        claims = encode_claims(spki_of(client.key.public_key()))
        quote = enclave.quote(hashlib.sha256(claims).digest() + bytes(32))
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        builder = builder.add_extension(evidence_extension(quote, claims), critical=False)
        if not isinstance(extra, x509.SubjectAlternativeName):
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=True)
        request = builder.add_extension(extra, critical=True).sign(client.key, hashes.SHA256())
        der = request.public_bytes(Encoding.DER)
        with pytest.raises(EvidenceError) as caught:
            client.ask(enclave.quote(client.binding(der)), der)
        assert caught.value.check == "request.contents"


class TestPolicy:
    def test_another_measurement(self, owner: Any, enclave: Any) -> None:
        with pytest.raises(RefusedError) as caught:
            owner.provision(enclave.but(mr_enclave=b"\x99" * 32))
        assert caught.value.check == "policy.mr_enclave"
        assert caught.value.found == "99" * 32
        assert "11" * 32 in (caught.value.rule or "")
        assert caught.value.remedy
        assert refused_with(owner, "policy.mr_enclave")["found"] == "99" * 32

    def test_a_debug_enclave(self, owner: Any, enclave: Any) -> None:
        flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
        with pytest.raises(RefusedError) as caught:
            owner.provision(enclave.but(attributes=Attributes(flags, 3)))
        assert caught.value.check == "policy.debug"
        refused_with(owner, "policy.debug")

    def test_a_debug_enclave_behind_a_sound_fresh_quote(self, raw: Any, enclave: Any) -> None:
        flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
        client = raw()
        request = client.request(enclave.but(attributes=Attributes(flags, 3)))
        with pytest.raises(RefusedError) as caught:
            client.ask(enclave.quote(client.binding(request)), request)
        assert caught.value.check == "policy.debug"

    def test_simulated_evidence_under_a_policy_for_hardware(self, owners: Any, policy: Any, enclave: Any) -> None:
        owner = owners(policy=dataclasses.replace(policy, roots=("intel",)))
        with pytest.raises(RefusedError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "policy.root"
        assert caught.value.found == enclave.vendor.root_name
        assert caught.value.rule == "roots: [intel]"
        refused_with(owner, "policy.root")

    def test_a_platform_that_is_out_of_date(self, owners: Any, policy: Any, enclave: Any) -> None:
        @dataclasses.dataclass
        class Outdated:
            collateral: Collateral

            def get_for(self, quote: bytes) -> Collateral:
                return self.collateral

        now = int(time.time())
        source = Outdated(enclave.vendor.collateral(now, CollateralRecipe(tcb_status="OutOfDate")))
        owner = owners(appraiser=Appraiser(policy, source, lambda: now))
        with pytest.raises(RefusedError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "policy.tcb_status"
        exception = StatusUntil(TcbStatus.OUT_OF_DATE, dt.date(9999, 12, 31))
        lax = dataclasses.replace(policy, tcb_statuses=(exception,))
        owner.server.appraiser = Appraiser(lax, source, lambda: now)
        assert owner.provision(enclave).secrets

    def test_a_quote_that_nobody_signed(self, owner: Any, enclave: Any) -> None:
        def forge(report_data: bytes) -> bytes:
            # The body of a genuine quote, with another report data.
            genuine = enclave.quote(bytes(64))
            return genuine[: 48 + 320] + report_data + genuine[48 + 384 :]

        with pytest.raises(EvidenceError) as caught:
            owner.provision(enclave, quote=forge)
        assert caught.value.check == "quote.signature"
        refused_with(owner, "quote.signature")


class Failing:
    """Stands before a real object and fails at one method."""

    def __init__(self, real: Any, method: str, error: Exception) -> None:
        self._real, self._method, self._error = real, method, error

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            return self._fail
        return getattr(self._real, name)

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error


class TestFailures:
    def test_what_cannot_be_recorded_is_not_released(self, owners: Callable[..., Any], enclave: Any) -> None:
        full = InputError("audit.write", "cannot write the audit log in /secret/place: no space left")
        owner = owners(audit=Failing(None, "append_many", full))
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "audit.write"
        assert "/secret/place" not in str(caught.value)

    def test_a_damaged_keystore_releases_nothing(self, owners: Callable[..., Any], enclave: Any) -> None:
        damaged = IntegrityError("keystore.damaged", "the keystore in /secret/place is damaged")
        owner = owners(keystore=Failing(None, "get", damaged))
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "keystore.damaged"
        assert "/secret/place" not in str(caught.value)
        # The owner reads what the stranger is not told.
        assert "/secret/place" in refused_with(owner, "keystore.damaged")["problem"]

    def test_an_outage_of_the_collateral_releases_nothing(
        self, owners: Callable[..., Any], policy: Any, enclave: Any
    ) -> None:
        class Outage:
            def get_for(self, quote: bytes) -> Collateral:
                raise UnreachableError("collateral.unreachable", "http://internal:8081 does not answer")

        owner = owners(appraiser=Appraiser(policy, Outage(), lambda: 0))
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "collateral.unreachable"
        assert "internal" not in str(caught.value)

    def test_a_bug_releases_nothing_and_tells_nothing(
        self, owners: Callable[..., Any], enclave: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        owner = owners(keystore=Failing(None, "get", RuntimeError("the key is 0123456789abcdef")))
        with pytest.raises(UnreachableError):
            owner.provision(enclave)
        assert "0123456789abcdef" not in caplog.text
        assert not [event for event, _ in owner.log() if event == "key.released"]
