"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import gc
import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, settings

from ensconce.addresses import Address, hold_port
from ensconce.appraisal.published import Measurements
from ensconce.audit import AuditLog
from ensconce.audit.check import prove_entry
from ensconce.audit.folder import FolderLog
from ensconce.cluster.deployment import Deployment
from ensconce.evidence.certificate import OID_LEGACY_GRAMINE, OID_LEGACY_MEANT, evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.publication.dsse import seal
from ensconce.publication.file import EVENT, PublishedFile
from ensconce.publication.statement import statement_bytes

# Hypothesis fails an example that takes more than 200 ms, and a test whose examples are slow to make: on a machine that
# has other work to do, any. What hangs ends with the timeout of the whole test.
settings.register_profile("ensconce", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ensconce")


def pytest_configure() -> None:
    """Give processes that tests interrupt a Ctrl-C to obey: background jobs of a shell inherit that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


# Rooms whose servers are a process's own, or one small process.
_SMALL = ("serving", "modelserver", "models")


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, let one worker have all tests that start processes and listen, one after the other.

    Enclaves alone are for the other worker, which otherwise has nothing left to do before the first has ended. The rest
    goes by files. Marks would not do: pytest-xdist 3.8 writes them into what pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            _, kind, room, *_ = file.split("/")
            alone = kind == "e2e" or (kind == "integration" and room not in _SMALL)
            return "enclaves" if room == "enclave" and alone else "processes" if alone else file

    return ByRoom(config, log)


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over the tests themselves and what they import: half a second, each time."""
    gc.freeze()


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of test vectors that others wrote; it is never part of the repository."""
    folder = Path(os.environ.get("ENSCONCE_VECTORS", Path(__file__).parents[2] / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no test vectors at {folder}; point ENSCONCE_VECTORS at them")
    return folder


@pytest.fixture(scope="session")
def sound_report() -> Callable[..., SgxReport]:
    """Makes the report of a sound enclave on a machine of ``vendor``, with other fields where given."""

    def make(vendor: SimulatedVendor, **changes: Any) -> SgxReport:
        sound: dict[str, Any] = {
            "cpu_svn": vendor.cpu_svn,
            "misc_select": 0,
            "isv_ext_prod_id": bytes(16),
            "attributes": Attributes(Attributes.INIT | Attributes.MODE64BIT, 3),
            "mr_enclave": b"\x11" * 32,
            "mr_signer": b"\x22" * 32,
            "config_id": bytes(64),
            "isv_prod_id": 7,
            "isv_svn": 3,
            "config_svn": 0,
            "isv_family_id": bytes(16),
            "report_data": bytes(range(64)),
        }
        return SgxReport(**(sound | changes))

    return make


@pytest.fixture(scope="session")
def deployment() -> Callable[..., Deployment]:
    """Makes the smallest deployment that there is, with other fields where given; nothing listens where it says."""

    def make(**more: Any) -> Deployment:
        return Deployment.check(
            {
                "version": 1,
                "service": {"domain": "d.test", "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
                "replicas": 1,
                "platform": {"kind": "simulated", "pccs": "127.0.0.1:8081"},
                "provisioning": {
                    "listen": "127.0.0.1:4433",
                    "servers": ["127.0.0.1:4433"],
                    "server_name": "provisioning.d.test",
                },
                "models": [{"name": "m"}],
                **more,
            }
        )

    return make


@pytest.fixture(scope="session")
def gramine_certificate() -> Callable[..., x509.Certificate]:
    """Makes a certificate as Gramine's library does: self-signed over a key, a quote of its own in each extension.

    ``forms`` are of ``legacy``, ``meant`` (the same under the OID that was meant) and ``tcg``; ``quote`` makes quotes.
    """

    def make(
        key: Any,
        quote: Callable[[bytes], bytes],
        forms: tuple[str, ...] = ("legacy", "tcg"),
        *,
        signer: Any = None,
        algorithm: Any = None,
        begin: dt.datetime = dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
        end: dt.datetime = dt.datetime(2030, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
    ) -> x509.Certificate:
        spki = spki_of(key.public_key())
        attributes = ((NameOID.COMMON_NAME, "RATLS"), (NameOID.ORGANIZATION_NAME, "GramineDevelopers"))
        name = x509.Name([x509.NameAttribute(*each) for each in (*attributes, (NameOID.COUNTRY_NAME, "US"))])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
        builder = builder.add_extension(x509.BasicConstraints(False, None), False)
        for form in forms:
            if form == "tcg":
                claims = encode_claims(spki)
                extension = evidence_extension(quote(hashlib.sha256(claims).digest() + bytes(32)), claims)
            else:
                oid = OID_LEGACY_GRAMINE if form == "legacy" else OID_LEGACY_MEANT
                extension = x509.UnrecognizedExtension(oid, quote(hashlib.sha256(spki).digest() + bytes(32)))
            builder = builder.add_extension(extension, False)
        return builder.sign(signer or key, algorithm or hashes.SHA256())

    return make


@pytest.fixture(scope="session")
def rsa_key() -> Callable[[int, int], rsa.RSAPrivateKey]:
    """Gives the key with this exponent and of this size; it takes long to make, so all tests have the same."""
    return functools.cache(rsa.generate_private_key)


@pytest.fixture(scope="session")
def signing_key(rsa_key: Callable[[int, int], rsa.RSAPrivateKey]) -> rsa.RSAPrivateKey:
    """What an owner signs enclaves with."""
    return rsa_key(3, 3072)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], object], str], None]:
    """Polls until something is so; fails after half a minute, which a machine with other work to do may need."""

    def wait(reached: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 30
        while not reached():
            assert time.monotonic() < deadline, f"still waiting for: {what}"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def find_port() -> Iterator[Callable[[], int]]:
    """Gives ports of the loopback address where nobody listens and which nobody but a test's own server comes by."""
    with contextlib.ExitStack() as held:

        def find() -> int:
            port: int = held.enter_context(hold_port()).getsockname()[1]
            return port

        yield find


class Listener:
    """A port on the loopback address; every connection to it is given to ``talk`` in a thread of its own."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self.accepted = 0
        self._talk = talk
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = Address("127.0.0.1", self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        # close() alone would not wake the accept, and the port would stay open.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.accepted += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()


@pytest.fixture(scope="session")
def listen() -> Callable[[Callable[[socket.socket], None]], Listener]:
    """Opens a :class:`Listener`; whoever does so stops it."""
    return Listener


class Publisher:
    """Somebody with a key and an audit log, who publishes whatever is asked for."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = self.key.public_key()
        self.log = FolderLog(folder)
        self._writer = AuditLog.open(folder, self.key, lambda: 1_790_000_000)
        self._seen: list[int] = []

    def measurements(self, *enclaves: bytes, serial: int = 1, **fields: Any) -> Measurements:
        """A list of enclaves with these measurements, or with these fields."""
        made = [
            {"name": f"enclave {each.hex()[:8]}", "mr_enclave": each.hex(), "mr_signer": bytes(32).hex()}
            | {"isv_prod_id": 0, "isv_svn": 0, "sigstruct": each.hex(), "published": "2026-01-01T00:00:00Z"}
            for each in enclaves
        ]
        times = {"created": "2026-01-01T00:00:00Z", "expires": "2099-01-01T00:00:00Z"}
        value = {"service": "digits.example.test", "serial": serial, **times, "enclaves": made, **fields}
        return Measurements.model_validate_json(json.dumps(value))

    def publish(self, measurements: Measurements, *, event: str = EVENT, **fields: Any) -> PublishedFile:
        """Sign it, record it (as something else, where told to), and prove that."""
        body = statement_bytes(measurements)
        recorded = {"serial": measurements.serial, "sha256": hashlib.sha256(body).hexdigest(), **fields}
        entry = self._writer.append(event, **recorded)
        proof = prove_entry(self.log, self.public, entry.seq)
        continues = tuple(self._writer.consistency(first, proof.head.size) for first in self._seen)
        self._seen.append(proof.head.size)
        return PublishedFile(seal(body, self.key), proof, continues, self.public, measurements)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """Publishes; its log is new."""
    return Publisher(tmp_path / "publisher")
