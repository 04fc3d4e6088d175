"""This machine: its simulated CPU, and where this user's caches are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ensconce.addresses import Address
from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.origin import BundleOrigin, Origin, ServerOrigin
from ensconce.appraisal.policy import Policy
from ensconce.errors import EnsconceError, InputError, UnreachableError
from ensconce.folders import cache_folder
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.pki import SimulatedVendor, default_home
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store
from ensconce.times import unix_now

__all__ = [
    "MachinePlatform",
    "collateral_cache",
    "simulated_root",
    "start_platform",
]

_START_S = 30.0
# A vendor elsewhere may start at the same time.
_ENROLMENT_S = 90.0


def simulated_root() -> str:
    """The name of this machine's simulated vendor, ``simulated:<sha256>``; the vendor is made when there is none.

    Raises:
        InputError: its folder cannot be read or made.
    """
    return SimulatedVendor.open(default_home(), unix_now()).root_name


def collateral_cache(
    policy: Policy, source: str, *, ca_file: Path | None = None, store: Store | None = None
) -> CollateralCache:
    """Collateral under the roots of a policy.

    Args:
        policy: names the roots.
        source: URL of a PCCS or of Intel's service; or, without ``://``, the path of a bundle file.
        ca_file: PEM file of the authorities to expect the server's TLS certificate from, instead of the system's.
        store: what remembers collateral, how new it was, and revocations; servers of one deployment share theirs. When
            absent, a folder of this user, one for each set of roots, because two simulated machines may have served
            the same address one after the other, and nothing of the first verifies under the root of the second.

    Raises:
        InputError: the user's folder cannot be made.
    """
    origin: Origin = ServerOrigin(source, policy.roots, ca_file) if "://" in source else BundleOrigin(Path(source))
    if store is None:
        name = "+".join(root.replace(":", "-")[:30] for root in policy.roots)
        folder = cache_folder() / "collateral" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "folder.cache",
                f"cannot make {folder}: {error.strerror}",
                remedy="set XDG_CACHE_HOME to a folder that can be written",
            ) from error
        store = FolderStore(folder)
    return CollateralCache(store, origin, unix_now, roots=policy.roots)


@dataclass(frozen=True)
class MachinePlatform:
    """The simulated platform's daemon, running as a child of this process."""

    control: PlatformControl
    process: subprocess.Popen[bytes]

    def close(self) -> None:
        """Stop the daemon, and with it every enclave."""
        self.process.terminate()
        self.process.wait()


def start_platform(run: Path, *, pccs: Address | None = None, vendor: str | None = None) -> MachinePlatform:
    """Start the daemon and wait until it answers.

    Args:
        run: folder for its socket ``platform.sock`` and its log.
        pccs: where it serves collateral; any free port of this machine when None.
        vendor: URL of a vendor elsewhere, that serves collateral in its place; this machine is its own when None.

    Raises:
        InputError: it cannot start; most often, the port is taken.
    """
    socket, log = run / "platform.sock", run / "logs" / "platform.log"
    with log.open("ab") as words:
        start = words.tell()
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ensconce.platform.simulated.daemon"),
                *("--socket", str(socket), "--exit-with-parent", str(os.getpid())),
                *(("--pccs", str(pccs)) if pccs is not None else ()),
                *(("--vendor", vendor) if vendor is not None else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
        )
    control = PlatformControl(socket)
    platform = MachinePlatform(control, process)
    until = time.monotonic() + (_START_S if vendor is None else _ENROLMENT_S)
    try:
        while not _answers(control):
            if process.poll() is not None:
                said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines() or ["nothing"]
                raise InputError(
                    "platform.start", "the simulated platform does not start", found=said[-1], remedy=f"read {log}"
                )
            if time.monotonic() > until:
                raise EnsconceError("platform.start", "the simulated platform does not answer", remedy=f"read {log}")
    except BaseException:
        platform.close()
        raise
    return platform


def _answers(control: PlatformControl) -> bool:
    try:
        control.wait(0.2)
    except UnreachableError:
        return False
    return True
