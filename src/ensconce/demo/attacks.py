"""The host attacks. Each attack must fail, and for the right reason; one that succeeds fails the demo.

The host is root on its machine. So it may change any file of the bundle, sign with keys of its own, talk to the
platform directly, listen on any port, and replay whatever it has seen.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.addresses import Address
from ensconce.appraisal.policy_file import load_policy
from ensconce.appraisal.policy_text import dump_policy
from ensconce.cluster.replica import last_words
from ensconce.demo.records import HANDSHAKE_BYTES, encrypted_bytes
from ensconce.demo.rogue import RogueReplica, certificate_of
from ensconce.demo.stage import DOMAIN, Stage
from ensconce.demo.tap import Tap
from ensconce.enclave.build import MANIFEST, SIGSTRUCT
from ensconce.enclave.sign import new_signing_key, sign_manifest
from ensconce.errors import EnsconceError, restore
from ensconce.evidence.certificate import read_certificate
from ensconce.files import write_aside
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.measurement import measure
from ensconce.provisioning.client import provision

__all__ = ["ATTACKS", "Attack", "Host", "Outcome", "Stopped"]

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Stopped:
    """What stopped one try of the host."""

    by: str
    error: EnsconceError


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: a few words.
        story: what the host does.
        checks: which check must stop each of its tries.
        carry_out: does it.
        takes_over: it needs the owner's provisioning server out of the way, so nothing else can go on meanwhile.
    """

    name: str
    story: str
    checks: tuple[str, ...]
    carry_out: Callable[[Host], list[Stopped]]
    takes_over: bool = False


@dataclass(frozen=True)
class Outcome:
    """How an attack ended."""

    attack: Attack
    stopped: tuple[Stopped, ...]

    @property
    def failed_as_it_must(self) -> bool:
        """Every try was stopped, each by the very check that is there for it."""
        return tuple(stop.error.check for stop in self.stopped) == self.attack.checks


class Host:
    """What the host does in the attacks; every try has a working folder of its own."""

    def __init__(self, stage: Stage, platform: PlatformControl) -> None:
        self.stage = stage
        self._platform = platform
        self._signing_key = new_signing_key()
        self._tries = itertools.count(1)

    def folder(self, models: str = "models") -> Path:
        """A working folder with copies of the enclave and of a folder of models, as hard links to save time."""
        folder = self.stage.host / "attacks" / str(next(self._tries))
        folder.mkdir(parents=True)
        for name, source in (("enclave", "enclave"), ("models", models)):
            shutil.copytree(self.stage.host / source, folder / name, copy_function=os.link)
        return folder

    def sign(self, folder: Path) -> None:
        """Sign the folder's manifest as it now is, with the host's own key."""
        manifest = parse_manifest((folder / MANIFEST).read_bytes())
        today = dt.datetime.now(dt.UTC).date()
        write_aside(folder / SIGSTRUCT, sign_manifest(manifest, measure(manifest), self._signing_key, date=today))

    def launch(self, folder: Path) -> Stopped:
        """Launch what is in ``folder`` and wait for what stops it.

        Raises:
            EnsconceError: nothing stopped it.
        """
        words = folder / "replica.err"
        try:
            pid = self._platform.launch(
                manifest=folder / MANIFEST,
                sigstruct=folder / SIGSTRUCT,
                cwd=folder,
                stdout=folder / "replica.log",
                stderr=words,
            )
        except EnsconceError as error:
            return Stopped("the platform's launcher", error)
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            status = {entry.pid: entry.exit_status for entry in self._platform.list()}.get(pid)
            if status is not None:
                return _ended(words, status)
            if (folder / "ready.json").exists():
                break
            time.sleep(0.05)
        self._platform.signal(pid, signal.SIGKILL)
        raise EnsconceError("demo.attack", "the attack succeeded: the replica serves", found=str(folder))


def _changed_code(host: Host) -> list[Stopped]:
    folder = host.folder()
    code = next((folder / "enclave").rglob("ensconce/errors.pyc"))
    old = code.read_bytes()
    # A byte in a docstring, so that the changed server still runs as far as it is let.
    new = old.replace(b"One hierarchy of errors", b"one hierarchy of errors", 1)
    write_aside(code, new)
    first = host.launch(folder)
    manifest = folder / MANIFEST
    digests = (hashlib.sha256(old).hexdigest().encode(), hashlib.sha256(new).hexdigest().encode())
    write_aside(manifest, manifest.read_bytes().replace(*digests))
    host.sign(folder)
    return [first, host.launch(folder)]


def _changed_argument(host: Host) -> list[Stopped]:
    folder = host.folder()
    manifest = folder / MANIFEST
    write_aside(manifest, manifest.read_bytes().replace(b'"-B"', b'"-O"', 1))
    first = host.launch(folder)
    host.sign(folder)
    return [first, host.launch(folder)]


def _flipped_bit(host: Host) -> list[Stopped]:
    folder = host.folder()
    sealed = next((folder / "models").rglob("model.bin"))
    data = bytearray(sealed.read_bytes())
    data[len(data) // 2] ^= 1
    write_aside(sealed, bytes(data))
    return [host.launch(folder)]


def _old_version(host: Host) -> list[Stopped]:
    return [host.launch(host.folder("last-week"))]


def _replay(host: Host) -> list[Stopped]:
    stage = host.stage
    victim = certificate_of("127.0.0.1", stage.ports.grpc, DOMAIN)
    folder = stage.host / "attacks" / "rogue"
    folder.mkdir(parents=True)
    with RogueReplica(victim, folder, DOMAIN) as rogue:
        shown = _stopped("the client", lambda: stage.verify(rogue.port))
        if rogue.received:
            raise EnsconceError("demo.attack", "the client sent something", found=f"{rogue.received} bytes")
    stolen = read_certificate(victim.public_bytes(Encoding.DER)).quote
    released = _stopped("the provisioning server", lambda: _ask_for_keys(stage, lambda _: stolen))
    return [shown, released]


def _intel_only(host: Host) -> list[Stopped]:
    stage = host.stage
    policy = load_policy(stage.owner / "policy.yaml")
    path = stage.owner / "intel-only.yaml"
    write_aside(path, dump_policy(replace(policy, roots=("intel",))).encode())
    with stage.other_provisioning("--owner", str(stage.owner), "--policy", str(path)):
        return [host.launch(host.folder())]


def _debug_enclave(host: Host) -> list[Stopped]:
    folder = host.folder()
    manifest = folder / MANIFEST
    write_aside(manifest, re.sub(rb"(?m)^debug = false$", b"debug = true", manifest.read_bytes()))
    host.sign(folder)
    return [host.launch(folder)]


def _other_measurement(host: Host) -> list[Stopped]:
    stage = host.stage
    policy = load_policy(stage.client / "policy.yaml")
    (identity,) = policy.identities
    other = replace(identity, mr_enclave=hashlib.sha256(b"another server").digest())
    path = stage.client / "other-policy.yaml"
    write_aside(path, dump_policy(replace(policy, identities=(other,))).encode())
    recording = stage.root / "tap" / "other-measurement"
    with Tap(Address("127.0.0.1", stage.ports.grpc), recording) as tap:
        stopped = _stopped("the client", lambda: stage.predict(tap.address[1], path))
    sent = sum(encrypted_bytes(path.read_bytes()) for path in recording.glob("*.to-server"))
    if not 0 < sent <= HANDSHAKE_BYTES:
        raise EnsconceError("demo.attack", "the client sent something", found=f"{sent} bytes after its key share")
    return [stopped]


def _impostor(host: Host) -> list[Stopped]:
    stage = host.stage
    impostor = stage.root / "impostor"
    # The server takes any policy from who starts it; it is the replica that must not take any server.
    policy = shutil.copy(stage.owner / "policy.yaml", impostor)
    with stage.other_provisioning("--owner", str(impostor), "--policy", str(policy), party="host"):
        return [host.launch(host.folder())]


def _ask_for_keys(stage: Stage, quote: Callable[[bytes], bytes]) -> object:
    """Ask as a replica does, with whatever ``quote`` gives for evidence."""
    return provision(
        [f"127.0.0.1:{stage.ports.provisioning}"],
        f"provisioning.{DOMAIN}",
        (stage.owner / "ca.pem").read_bytes(),
        quote,
        DOMAIN,
        [("digits", 2)],
    )


def _stopped(by: str, attempt: Callable[[], object]) -> Stopped:
    try:
        attempt()
    except EnsconceError as error:
        return Stopped(by, error)
    raise EnsconceError("demo.attack", f"the attack succeeded: {by} did not stop it")


def _ended(words: Path, status: int) -> Stopped:
    """What a replica that ended says of the reason; some of the reasons are not its own."""
    error = restore(last_words(words, "the replica"), status)
    asked = error.check.partition(".")[0] in ("policy", "key", "quote")
    return Stopped("the provisioning server" if asked else "the replica itself", error)


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "changed code",
        "one byte of the server's code changed; then measured and signed anew by the host",
        ("launcher.trusted_file", "policy.mr_enclave"),
        _changed_code,
    ),
    Attack(
        "changed argument",
        "one argument in the manifest changed; then signed anew by the host",
        ("launcher.measurement", "policy.mr_enclave"),
        _changed_argument,
    ),
    Attack("flipped bit", "one bit of a sealed model file flipped", ("encfile.node_mac",), _flipped_bit),
    Attack(
        "old version",
        "last week's sealed version put back after its key was retired",
        ("key.retired",),
        _old_version,
    ),
    Attack(
        "replay",
        "a replica that presents another replica's evidence: to a client, and to the provisioning server",
        ("ratls.pubkey_hash", "provisioning.channel_binding"),
        _replay,
    ),
    Attack("debug enclave", "the enclave started with debug, signed by the host", ("policy.debug",), _debug_enclave),
    Attack(
        "other measurement",
        "a replica whose measurement is not the one that the client accepts",
        ("policy.mr_enclave",),
        _other_measurement,
    ),
    Attack(
        "simulated",
        "simulated evidence, and a policy whose only root is Intel's",
        ("policy.root",),
        _intel_only,
        takes_over=True,
    ),
    Attack(
        "impostor",
        "a provisioning server of the host's own at the owner's address",
        ("provisioning.server_certificate",),
        _impostor,
        takes_over=True,
    ),
)
