"""This machine's simulated CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ensconce.addresses import Address
from ensconce.errors import EnsconceError, InputError, UnreachableError
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.pki import SimulatedVendor, default_home
from ensconce.times import unix_now

__all__ = [
    "MachinePlatform",
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
