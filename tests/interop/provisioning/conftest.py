"""Gramine's library, unmodified, in a process of this machine that has a /dev/attestation of its own.

The library needs nothing else of Gramine: it writes 64 bytes to one file, reads a quote from another, and writes the
key to a third. Named pipes with a thread at their other end answer the first two. The process sees them under /dev in
a mount namespace of its own, for which nobody has to be root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy, WireV1
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.evidence.report import SgxReport
from ensconce.keys import FolderPlace, SealedKeystore
from ensconce.keys.unlock import new_key_file
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority

KEY = bytes(range(0xF0, 0x100))
LICENCE = "for one seat"

# What the program sees as /dev: four devices, and the attestation files.
_ENTER = """
mount -t tmpfs none "$0/devices"
mount --rbind /dev "$0/devices"
mount -t tmpfs none /dev
for each in null zero random urandom; do : > /dev/$each; mount --bind "$0/devices/$each" /dev/$each; done
mkdir /dev/attestation
mount --bind "$0/attestation" /dev/attestation
exec "$@"
"""
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
_PROGRAM = 'printf "it runs with %s" "${SECRET_PROVISION_SECRET_STRING-nothing}"'


@dataclass(frozen=True)
class Library:
    """An installed ``libsecret_prov_attest.so``; what it can do is read off its strings.

    Attributes:
        path: where it is.
        key_variable: what asks it to set a key, and which.
        key_file: where it writes that key.
        form: how it wants the key.
        key: what it writes.
        evidence: the form of evidence that counts in its certificate.
        fails_closed: the program does not start when something goes wrong.
    """

    path: Path
    key_variable: Mapping[str, str]
    key_file: str
    form: Any
    key: bytes
    evidence: str
    fails_closed: bool

    @classmethod
    def at(cls, path: Path) -> Library:
        code = path.read_bytes()
        names_keys = b"SECRET_PROVISION_SET_KEY" in code
        return cls(
            path,
            {"SECRET_PROVISION_SET_KEY": "model"} if names_keys else {"SECRET_PROVISION_SET_PF_KEY": "1"},
            "keys/model" if names_keys else "protected_files_key",
            "raw" if b"is not 16 bytes long" in code else "hex",
            KEY if names_keys else KEY.hex().encode(),
            "tcg" if b"pubkey-hash" in code else "legacy",
            b"terminating the whole process" in code,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "library" not in metafunc.fixturenames:
        return
    prefix = os.environ.get("ENSCONCE_GRAMINE_PREFIX")
    found = sorted({each.resolve() for each in Path(prefix).rglob("libsecret_prov_attest.so")}) if prefix else []
    missing = f"no libsecret_prov_attest.so under {prefix}" if prefix else "ENSCONCE_GRAMINE_PREFIX names no Gramine"
    parameters: list[Any] = [
        pytest.param(each, id=str(each.relative_to(Path(str(prefix)).resolve()).parent)) for each in found
    ]
    skipped = pytest.param(None, marks=pytest.mark.skip(reason=missing))
    metafunc.parametrize("library", parameters or [skipped], indirect=True, scope="session")


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Library:
    """Each library under the folder that ENSCONCE_GRAMINE_PREFIX names."""
    with contextlib.suppress(OSError):
        if subprocess.run([*_NAMESPACE, "true"], capture_output=True, timeout=10).returncode == 0:
            return Library.at(request.param)
    pytest.skip("no user and mount namespaces here: unshare --user --map-root-user --mount fails")


class AttestationFiles:
    """The files that Gramine offers its program, for one program at a time."""

    def __init__(self, folder: Path, quote: Callable[[bytes], bytes]) -> None:
        self.folder = folder / "attestation"
        self._quote = quote
        (folder / "devices").mkdir()
        (self.folder / "keys").mkdir(parents=True)
        for name in ("keys/model", "protected_files_key"):
            (self.folder / name).touch()
        for name in ("user_report_data", "quote"):
            os.mkfifo(self.folder / name)
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        # Whichever of the two is being opened has another end now, for a moment.
        for name in ("user_report_data", "quote"):
            os.close(os.open(self.folder / name, os.O_RDWR | os.O_NONBLOCK))
        self._thread.join(5)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self._stopped:
            report_data = (self.folder / "user_report_data").read_bytes()
            if report_data:
                with contextlib.suppress(BrokenPipeError):
                    (self.folder / "quote").write_bytes(self._quote(report_data))


@dataclass(frozen=True)
class Ran:
    """How a program ended: its status, what it printed, and the key that it was given."""

    status: int
    output: str
    complaint: str
    key: bytes


@dataclass
class Machine:
    """A machine on which an enclave runs a program with Gramine's library."""

    folder: Path
    files: AttestationFiles
    library: Library
    port: int

    def run(
        self, servers: str | None = None, ca_pem: bytes | None = None, program: str = _PROGRAM, **environment: str
    ) -> Ran:
        if ca_pem is not None:
            (self.folder / "ca.pem").write_bytes(ca_pem)
        manifest = {
            "LD_PRELOAD": str(self.library.path),
            "SECRET_PROVISION_CONSTRUCTOR": "1",
            "SECRET_PROVISION_CA_CHAIN_PATH": str(self.folder / "ca.pem"),
            "SECRET_PROVISION_SERVERS": servers or f"localhost:{self.port}",
        } | environment
        # Only the program itself is preloaded, and nothing of this environment reaches it.
        start = ["env", "-i", *(f"{name}={value}" for name, value in manifest.items()), "/bin/sh", "-c", program]
        done = subprocess.run(
            [*_NAMESPACE, "sh", "-euc", _ENTER, self.folder, *start], capture_output=True, text=True, timeout=30
        )
        key = (self.files.folder / self.library.key_file).read_bytes()
        return Ran(done.returncode, done.stdout, done.stderr, key)

    def run_for_key(self, **how: Any) -> Ran:
        return self.run(**{**self.library.key_variable, **how})


@dataclass(frozen=True)
class Source:
    """Collateral straight from the vendor."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        """Nothing better is to be had."""


@dataclass(frozen=True)
class Owner:
    """An owner with a running server, and the machine that asks it."""

    machine: Machine
    keystore: SealedKeystore
    audit: AuditLog

    def wait_for_log(self, count: int = 1) -> list[tuple[str, Mapping[str, Any]]]:
        deadline = time.monotonic() + 30
        while len(entries := list(self.audit.entries())) < count and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return [(entry.event, entry.fields) for entry in entries]


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), int(time.time()))


@pytest.fixture
def owner(
    tmp_path: Path,
    library: Library,
    vendor: SimulatedVendor,
    sound_report: Callable[..., SgxReport],
    request: pytest.FixtureRequest,
) -> Iterator[Owner]:
    """A provisioning server for ``localhost`` that gives the program its key, or as the parameter says."""

    def now() -> int:
        return int(time.time())

    secret, form = {"key": ("model/digits/1", library.form), "text": ("secret/licence", "text"), "nothing": ("", "")}[
        getattr(request, "param", "key")
    ]
    receives = ("model/digits", "secret/licence")
    chosen = Identity(
        name="program",
        mr_enclave=b"\x11" * 32,
        receives=receives,
        wire_v1=WireV1(secret=secret, form=form) if secret else None,
    )
    # Without another identity that opts in, the server would not speak this protocol at all.
    other = Identity(
        name="other", mr_enclave=b"\x22" * 32, receives=receives, wire_v1=WireV1(secret="model/digits/1", form="raw")
    )
    policy = Policy(roots=(vendor.root_name,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(chosen, other))
    authority = CertificateAuthority.create("the owner", now())
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "unlock.key"))
    keystore.put("model/digits/1", KEY, kind="wrap")
    keystore.put("secret/licence", LICENCE.encode(), kind="secret")
    audit = AuditLog.open(tmp_path / "audit", Ed25519PrivateKey.generate(), now)
    server = ProvisioningServer(
        Address("127.0.0.1", 0),
        server_name="localhost",
        authority=authority,
        appraiser=Appraiser(policy, Source(vendor.collateral(now())), now),
        keystore=keystore,
        audit=audit,
        domain="digits.example.test",
        now=now,
    )
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    report = sound_report(vendor)
    files = AttestationFiles(tmp_path, lambda data: make_quote(vendor, replace(report, report_data=data)))
    try:
        yield Owner(Machine(tmp_path, files, library, server.port), keystore, audit)
    finally:
        files.stop()
        server.shutdown()
        serving.join(5)
