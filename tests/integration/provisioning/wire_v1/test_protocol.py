"""Gramine's protocol, spoken to a running server as its library speaks it: Python's own TLS, no ALPN, one request."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.appraisal.policy import Policy
from ensconce.errors import IntegrityError
from ensconce.evidence.report import Attributes
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.provisioning.limits import Limits

REQUEST = b"SECRET_PROVISION_RA_TLS_REQUEST_V1\x00"
KEY = b"first wrap key 1"
CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])

Refused = Callable[..., Mapping[str, Any]]


class TestReleased:
    @VERSIONS
    @pytest.mark.parametrize("kind", [*CURVES, "RSA-3072"])
    def test_over_both_versions_with_every_key_and_form(
        self, owner: Any, program: Any, rsa_key: Callable[..., Any], kind: str, version: Any
    ) -> None:
        key: Any = ec.generate_private_key(CURVES[kind]()) if kind in CURVES else rsa_key(65537, 3072)
        forms = [("legacy",), ("meant",), ("tcg",), ("legacy", "tcg")]
        assert [program.ask(key=key, forms=each, version=version) for each in forms] == [KEY] * 4
        entries = owner.wait_for_log(4)
        assert [fields["evidence_form"] for _, fields in entries] == ["legacy", "legacy", "tcg", "tcg"]

    def test_as_hexadecimal_digits_to_the_older_library(self, program: Any) -> None:
        secret = program.ask(enclave=program.enclave.but(mr_enclave=b"\x22" * 32), version=TLS_1_2, forms=("legacy",))
        assert secret == KEY.hex().encode() + b"\x00"

    def test_as_text(self, program: Any) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x33" * 32)) == b"for one seat\x00"

    def test_and_recorded_with_who_it_was(self, owner: Any, program: Any, policy: Policy) -> None:
        program.ask()
        ((event, fields),) = owner.wait_for_log(1)
        assert event == "key.released"
        expected = {
            "wire": "v1",
            "key_ids": ("model/digits/1",),
            "identity": "program",
            "mr_enclave": "11" * 32,
            "policy_sha256": policy.sha256,
            "tls_key_sha256": hashlib.sha256(spki_of(program.key.public_key())).hexdigest(),
            "evidence_form": "tcg",
        }
        assert {name: fields[name] for name in expected} == expected
        assert KEY.hex() not in str(fields)

    def test_beside_wire_v2_on_the_same_port(self, owner: Any, program: Any, enclave: Any) -> None:
        assert program.ask() == KEY
        assert owner.provision(enclave).secrets == {"model/digits/1": KEY}
        assert [fields["wire"] for _, fields in owner.wait_for_log(2)] == ["v1", "v2"]

    def test_in_pieces_however_they_come(self, program: Any) -> None:
        with program.connect() as tls:
            for at in range(len(REQUEST)):
                tls.sendall(REQUEST[at : at + 1])
            assert program.receive(tls) == KEY


class TestRequest:
    @pytest.mark.parametrize(
        "request_bytes",
        [REQUEST.replace(b"V1", b"V2"), REQUEST[:-1] + b"\n", bytes(35), REQUEST + b"more", b"GET / HTTP/1.1\r\n" * 3],
    )
    def test_that_is_another(self, program: Any, refused: Refused, request_bytes: bytes) -> None:
        assert program.ask(request_bytes) is None
        fields = refused("provisioning.request")
        assert fields["wire"] == "v1"
        assert "mr_enclave" not in fields

    def test_that_ends_early(self, program: Any, refused: Refused) -> None:
        with program.connect() as tls:
            tls.sendall(REQUEST[:-1])
            with contextlib.suppress(OSError):
                tls.unwrap()
        refused("tls.closed")

    def test_that_takes_too_long(self, owners: Any, programs: Any, refused: Refused) -> None:
        owner = owners(limits=Limits(handshake_time=3600.0, exchange_time=1.0, closing_time=0.5))
        program = programs(owner)
        with program.connect() as tls:
            tls.sendall(REQUEST[:20])
            assert program.receive(tls) is None
        refused("tls.timeout", owner)


class TestPolicy:
    def test_that_does_not_opt_in_for_this_identity(self, program: Any, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x66" * 32)) is None
        fields = refused("policy.wire_v1")
        assert (fields["identity"], fields["mr_enclave"]) == ("modern", "66" * 32)

    def test_that_does_not_name_the_enclave(self, program: Any, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x99" * 32)) is None
        refused("policy.mr_enclave")

    def test_that_does_not_accept_debug(self, program: Any, refused: Refused) -> None:
        debug = Attributes(Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG, 3)
        assert program.ask(enclave=program.enclave.but(attributes=debug)) is None
        refused("policy.debug")

    def test_that_does_not_name_the_root(self, program: Any, refused: Refused) -> None:
        stranger = dataclasses.replace(program.enclave, vendor=SimulatedVendor(b"\x01" * 32, int(time.time())))
        assert program.ask(enclave=stranger) is None
        refused("policy.root")

    def test_that_names_a_key_that_is_not_there(self, program: Any, refused: Refused) -> None:
        assert program.ask(enclave=program.enclave.but(mr_enclave=b"\x44" * 32)) is None
        refused("key.unknown")

    def test_that_names_a_key_that_was_retired(self, owner: Any, program: Any, refused: Refused) -> None:
        owner.keystore.retire("model/digits/1")
        assert program.ask() is None
        assert refused("key.retired")["identity"] == "program"

    def test_that_names_a_form_that_the_secret_does_not_have(self, program: Any, refused: Refused) -> None:
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
    def test_other_protocols_get_an_alert(self, program: Any, refused: Refused) -> None:
        context = program.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"), program.connect(context):
            pass
        assert refused("tls.alpn")["found"] == "b'h2, http/1.1'"

    def test_wire_v2_is_not_spoken_over_tls_1_2(self, program: Any, refused: Refused) -> None:
        context = program.context(version=TLS_1_2)
        context.set_alpn_protocols(["ensconce/1"])
        with program.connect(context) as tls:
            tls.sendall(REQUEST)
            assert program.receive(tls) is None
        refused("tls.version")


class TestResumption:
    """A resumed session would carry an identity over from an earlier handshake."""

    @VERSIONS
    def test_leads_to_a_full_handshake(self, owner: Any, program: Any, version: Any) -> None:
        context = program.context(version=version)
        with program.connect(context) as tls:
            tls.sendall(REQUEST)
            assert program.receive(tls) == KEY
            session = tls.session
        assert session is not None
        with program.connect(context, session) as tls:
            assert not tls.session_reused
            tls.sendall(REQUEST)
            assert program.receive(tls) == KEY
        assert len(owner.wait_for_log(2)) == 2

    @VERSIONS
    def test_is_not_offered(self, program: Any, version: Any) -> None:
        """Gramine 1.8 fails when it is sent a ticket; others, whose certificate is in it, would read 10 kB more."""
        with program.connect(program.context(version=version)) as tls:
            tls.sendall(REQUEST)
            assert program.receive(tls) == KEY
            assert tls.session is not None
            assert not tls.session.has_ticket


class TestManyAtOnce:
    def test_a_silent_client_holds_up_nobody(self, program: Any) -> None:
        with program.connect() as silent, program.connect() as slow:
            slow.sendall(REQUEST[:5])
            assert program.ask() == KEY
            silent.sendall(REQUEST)
            assert program.receive(silent) == KEY
