"""The order of things: handshake, evidence, judgement, and only then a byte. Real TLS servers, real quotes."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.client.attested import AttestedSocket, connect_tls
from ensconce.errors import EvidenceError, RefusedError, UnreachableError
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.trust import load_authority

DOMAIN = "digits.example.test"
OTHER_CODE = bytes(32)
DAY = 24 * 3600


def connect(world, target: Address, name: str = DOMAIN, appraiser=None, **options) -> AttestedSocket:
    options = {"authority": world.authority.certificate, "alpn": "h2", "timeout": 5.0, **options}
    return connect_tls(target, name, appraiser or world.appraiser(), **options)


def test_an_accepted_replica(world, recorder) -> None:
    server = recorder(world.replica())
    with connect(world, server.target) as attested:
        attested.tls.write(b"pixels")
        assert attested.tls.read(6) == b"PIXELS"
        assert attested.acceptance.identity.name == "server"
        assert len(attested.replica_id) == 16
        assert int(attested.replica_id, 16) >= 0
        assert attested.tls.connection.get_protocol_version_name() == "TLSv1.3"
    assert server.names == [DOMAIN]
    assert server.received == b"pixels"


def test_tls_1_2_and_no_alpn_for_http_1(world, recorder) -> None:
    server = recorder(world.replica(), alpn=[], maximum=ssl.TLSVersion.TLSv1_2)
    with connect(world, server.target, alpn="http/1.1") as attested:
        assert attested.tls.connection.get_protocol_version_name() == "TLSv1.2"
        attested.tls.write(b"x")
        assert attested.tls.read(1) == b"X"


def test_each_replica_has_its_own_id(world, recorder) -> None:
    ids = set()
    for _ in range(2):
        with connect(world, recorder(world.replica()).target) as attested:
            ids.add(attested.replica_id)
    assert len(ids) == 2


def test_no_session_is_resumed_and_its_keys_are_in_no_file(world, recorder, monkeypatch, tmp_path) -> None:
    """Tickets are offered after each handshake; and OpenSSL can be built so that the environment names such a file."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    resumed = []

    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(tls.recv(100).upper())
        resumed.append(tls.session_reused)

    server = recorder(world.replica(), talk=talk)
    for _ in range(2):
        with connect(world, server.target) as attested:
            attested.tls.write(b"x")
            assert attested.tls.read(1) == b"X"
    server.stop()
    assert resumed == [False, False]
    assert not (tmp_path / "keys").exists()


def test_without_an_authority_the_evidence_alone_counts(world, recorder) -> None:
    stranger = CertificateAuthority.create("somebody", world.now)
    server = recorder(world.replica(authority=stranger))
    with connect(world, server.target, authority=None):
        pass


def other_measurement(world):
    return world.replica(mr_enclave=OTHER_CODE)


def no_evidence(world):
    return world.self_signed(ec.generate_private_key(ec.SECP256R1()), None)


def replayed_evidence(world):
    return world.thief(world.replica(), self_signed=False)


def self_signed_with_stolen_evidence(world):
    return world.thief(world.replica(), self_signed=True)


def expired(world):
    return world.replica(issued=world.now - 2 * DAY)


def not_valid_yet(world):
    return world.replica(issued=world.now + DAY)


def wrong_domain(world):
    return world.replica(domain="other.example.test")


def parent_domain(world):
    return world.replica(domain="example.test")


def wildcard(world):
    return world.replica(domain="*.example.test")


def debug(world):
    return world.replica(debug=True)


def stranger_as_issuer(world):
    return world.replica(authority=CertificateAuthority.create("owner", world.now))


def unreadable_issuer(world):
    # A TeletexString that is no UTF-8: OpenSSL takes it, and cryptography fails when the name is looked at.
    replica = world.replica()
    extensions = x509.load_pem_x509_certificates(replica.chain_pem)[0].extensions
    evidence = next(each.value for each in extensions if isinstance(each.value, x509.UnrecognizedExtension))
    der = ssl.PEM_cert_to_DER_cert(world.self_signed(replica.key, evidence).chain_pem.decode())
    bent = der.replace(b"\x0c\x05RATLS", b"\x14\x05\xffATLS")
    assert bent != der
    return type(replica)(replica.key, ssl.DER_cert_to_PEM_cert(bent).encode())


@pytest.mark.parametrize(
    ("who", "kind", "check"),
    [
        (unreadable_issuer, EvidenceError, "certificate.format"),
        (other_measurement, RefusedError, "policy.mr_enclave"),
        (debug, RefusedError, "policy.debug"),
        (no_evidence, EvidenceError, "certificate.evidence"),
        (replayed_evidence, EvidenceError, "ratls.pubkey_hash"),
        (self_signed_with_stolen_evidence, EvidenceError, "ratls.pubkey_hash"),
        (expired, EvidenceError, "certificate.validity"),
        (not_valid_yet, EvidenceError, "certificate.validity"),
        (wrong_domain, EvidenceError, "certificate.name"),
        (parent_domain, EvidenceError, "certificate.name"),
        (wildcard, EvidenceError, "certificate.name"),
        (stranger_as_issuer, EvidenceError, "certificate.issuer"),
    ],
)
def test_refusals_send_nothing(world, recorder, wait_for, who, kind, check) -> None:
    server = recorder(who(world))
    with pytest.raises(kind) as refused:
        connect(world, server.target)
    assert refused.value.check == check
    assert refused.value.found is not None or check == "certificate.evidence"
    wait_for(lambda: server.ended == 1, "the server to see the end of the connection")
    assert server.received == b""


def test_simulated_evidence_under_a_policy_for_hardware(world, recorder, wait_for) -> None:
    server = recorder(world.replica())
    with pytest.raises(RefusedError) as refused:
        connect(world, server.target, appraiser=world.appraiser(root="intel"))
    assert refused.value.check == "policy.root"
    wait_for(lambda: server.ended == 1, "the server to see the end of the connection")
    assert server.received == b""


def test_an_authority_that_has_expired(world, recorder) -> None:
    day = dt.timedelta(days=1)
    begin = world.authority.certificate.not_valid_before_utc
    old = (
        x509.CertificateBuilder()
        .subject_name(world.authority.certificate.subject)
        .issuer_name(world.authority.certificate.subject)
        .public_key(world.authority.key.public_key())
        .serial_number(1)
        .not_valid_before(begin - 2 * day)
        .not_valid_after(begin - day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(world.authority.key, hashes.SHA256())
    )
    with pytest.raises(EvidenceError, match="has expired") as refused:
        connect(world, recorder(world.replica()).target, authority=old)
    assert refused.value.check == "certificate.issuer"


def test_a_leaf_is_no_authority(world, recorder) -> None:
    replica = world.replica()
    server = recorder(replica)
    with pytest.raises(EvidenceError) as refused:
        connect(world, server.target, authority=load_authority(replica.chain_pem))
    assert refused.value.check == "certificate.issuer"


@contextlib.contextmanager
def misbehaving(behaviour: Callable[[socket.socket], None]) -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    behaviour(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address("127.0.0.1", server.getsockname()[1])
        thread.join(30)


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


def talk_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def half_a_record(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x01\x00\x02")


@pytest.mark.parametrize("behaviour", [hang_up, talk_http, half_a_record])
def test_a_server_that_breaks_off_the_handshake(world, behaviour) -> None:
    with misbehaving(behaviour) as target, pytest.raises(UnreachableError) as failed:
        connect(world, target)
    assert failed.value.check == "tls.handshake"


def test_a_server_that_says_nothing(world) -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with misbehaving(silent) as target, pytest.raises(UnreachableError) as failed:
        connect(world, target, timeout=0.3)
    assert failed.value.check == "tls.handshake"
    assert failed.value.found == "nothing in time"


def test_a_server_of_another_protocol(world, recorder, wait_for) -> None:
    server = recorder(world.replica(), alpn=["http/1.1"])
    with pytest.raises(UnreachableError) as failed:
        connect(world, server.target)
    assert failed.value.check in {"tls.alpn", "tls.handshake"}
    wait_for(lambda: server.ended == 1, "the server to see the end of the connection")
    assert server.received == b""


def test_nobody_listens(world, find_port) -> None:
    port = find_port()
    with pytest.raises(UnreachableError) as failed:
        connect(world, Address("127.0.0.1", port))
    assert failed.value.check == "connect.tcp"
    assert f"127.0.0.1:{port}" in failed.value.problem


def test_nobody_answers(world) -> None:
    # A listener whose queue is full drops the SYN: the only way to a timeout that needs no other machine.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(UnreachableError) as failed:
            connect(world, Address("127.0.0.1", full.getsockname()[1]), timeout=0.3)
    assert failed.value.check == "connect.tcp"
    assert "timed out" in failed.value.problem


def test_a_host_that_is_not(world) -> None:
    with pytest.raises(UnreachableError) as failed:
        connect(world, Address("nowhere.invalid", 1))
    assert failed.value.check == "connect.name"


def test_collateral_that_is_not_to_be_had(world, recorder, wait_for) -> None:
    class Nowhere:
        def get_for(self, quote: bytes):
            raise UnreachableError("pccs", "no collateral")

    server = recorder(world.replica())
    appraiser = world.appraiser()
    with pytest.raises(UnreachableError, match="no collateral"):
        connect(world, server.target, appraiser=type(appraiser)(appraiser.policy, Nowhere(), appraiser.now))
    wait_for(lambda: server.ended == 1, "the server to see the end of the connection")
    assert server.received == b""
