"""When a replica is ready and when it is alive: by what it says, and by the certificate that it shows."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.cluster.pod.health import Health, our_replica, tensorflow_serving
from ensconce.enclave.config import ListenConfig, ModelConfig, ProvisioningConfig, ReplicaConfig
from ensconce.ratls.authority import CertificateAuthority

DOMAIN = "digits.example.test"
NOW = int(time.time())


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("the owner", NOW)


@pytest.fixture
def serving(authority: CertificateAuthority, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Serves TLS with a certificate for a name, until the end or until told; gives the port."""
    with contextlib.ExitStack() as listening:

        def serve(domain: str = DOMAIN, by: CertificateAuthority = authority, lifetime: int = 3600) -> int:
            key = ec.generate_private_key(ec.SECP256R1())
            chain = by.issue_server(key.public_key(), domain, now=NOW, lifetime=lifetime)
            private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (tmp_path / "server.pem").write_bytes(private + chain)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "server.pem")
            listener = listening.enter_context(socket.create_server(("127.0.0.1", 0)))

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        with contextlib.suppress(OSError):
                            context.wrap_socket(connection, server_side=True).close()

            threading.Thread(target=accept, daemon=True).start()
            listening.callback(listener.shutdown, socket.SHUT_RDWR)
            return int(listener.getsockname()[1])

        yield serve


@pytest.fixture
def health(authority: CertificateAuthority, tmp_path: Path) -> Callable[..., Health]:
    def make(*models: str, **more: Any) -> Health:
        config = ReplicaConfig(
            domain=DOMAIN,
            models=tuple(ModelConfig(name=name) for name in models or ("digits",)),
            provisioning=ProvisioningConfig(
                servers=("127.0.0.1:4433",),
                server_name="provisioning.example.test",
                ca_pem=authority.certificate_pem.decode(),
            ),
            listen=more.pop("listen", ListenConfig(grpc="0.0.0.0:0", rest="0.0.0.0:0")),
        )
        return Health(our_replica(config, tmp_path), **more)

    return make


@pytest.fixture
def say(tmp_path: Path) -> Callable[..., None]:
    """Writes ``ready.json`` as the replica does."""

    def write(grpc: int, *servables: str) -> None:
        ready = {"grpc": grpc, "rest": 1, "key_sha256": "ab" * 32, "servables": list(servables)}
        (tmp_path / "ready.json").write_text(json.dumps(ready))

    return write


def reason(health: Health) -> str:
    health.look()
    assert health.ready is (not health.reason)
    return health.reason


def test_ready_is_attested_and_loaded(
    health: Callable[..., Health], say: Callable[..., None], serving: Callable[..., int]
) -> None:
    replica = health()
    assert not replica.ready
    assert replica.alive
    assert "no keys yet" in reason(replica)
    say(serving(), "digits/1")
    assert reason(replica) == ""
    replica.stopping = True
    assert not replica.ready
    assert replica.alive


def test_what_it_says_must_be_readable(health: Callable[..., Health], tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text("{}")
    assert "cannot be read" in reason(health())


def test_another_port_is_not_found_in_a_pod(health: Callable[..., Health], say: Callable[..., None]) -> None:
    say(40000, "digits/1")
    replica = health(listen=ListenConfig(grpc="0.0.0.0:8500", rest="0.0.0.0:8501"))
    assert reason(replica) == "it listens on port 40000, because 8500 is taken"


def test_first_every_model_then_any(
    health: Callable[..., Health], say: Callable[..., None], serving: Callable[..., int]
) -> None:
    replica, port = health("digits", "letters"), serving()
    say(port, "digits/1")
    assert reason(replica) == "it serves no version of letters"
    say(port, "digits/1", "letters/2")
    assert reason(replica) == ""
    # A model that the owner withdraws takes the other one out of service no more.
    say(port, "digits/1")
    assert reason(replica) == ""
    say(port)
    assert "no version" in reason(replica)


@pytest.mark.parametrize("wrong", ["name", "authority", "end", "nobody"])
def test_a_certificate_that_no_attested_replica_shows(
    health: Callable[..., Health],
    say: Callable[..., None],
    serving: Callable[..., int],
    find_port: Callable[[], int],
    wrong: str,
) -> None:
    match wrong:
        case "name":
            port = serving("other.example.test")
        case "authority":
            port = serving(by=CertificateAuthority.create("somebody", NOW))
        case "end":
            port = serving(lifetime=-1)
        case _:
            port = find_port()
    say(port, "digits/1")
    assert reason(health()).startswith("no handshake: ")


def test_alive_until_it_has_been_silent_for_a_minute(
    health: Callable[..., Health], say: Callable[..., None], serving: Callable[..., int], find_port: Callable[[], int]
) -> None:
    at = [0.0]
    replica = health(clock=lambda: at[0])
    at[0] = 1000.0
    replica.look()
    assert replica.alive  # It has not served yet: that is for the startup probe.
    say(serving(), "digits/1")
    replica.look()
    say(find_port(), "digits/1")
    at[0] += 59.0
    replica.look()
    assert (replica.ready, replica.alive) == (False, True)
    at[0] += 2.0
    replica.look()
    assert not replica.alive


def test_tensorflow_serving_shows_that_it_got_its_key(
    serving: Callable[..., int], authority: CertificateAuthority, find_port: Callable[[], int]
) -> None:
    ca_pem = authority.certificate_pem.decode()
    # Until its models are loaded, its port is shut.
    assert reason(Health(tensorflow_serving(find_port(), ca_pem))).startswith("no handshake: ")
    assert reason(Health(tensorflow_serving(serving(), ca_pem))) == ""
    strangers = serving(by=CertificateAuthority.create("somebody", NOW))
    assert "certificate verify failed" in reason(Health(tensorflow_serving(strangers, ca_pem)))
    assert reason(Health(tensorflow_serving(serving(), "no certificate"))).startswith("no handshake: ")
