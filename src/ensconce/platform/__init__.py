"""Where am I? The Platform protocol, Gramine's /dev/attestation, and the simulated platform."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ensconce.errors import InputError

__all__ = ["Platform", "current"]


class Platform(Protocol):
    """What an enclave needs of the CPU that runs it."""

    @property
    def name(self) -> str:
        """Short name: ``gramine`` or ``simulated``."""
        ...

    def quote(self, report_data: bytes) -> bytes:
        """A fresh quote of this enclave.

        Args:
            report_data: 64 bytes that the quote shall carry.

        Raises:
            EnsconceError: there is none to be had; says why.
        """
        ...


def current() -> Platform:
    """The platform that this process runs on.

    Nothing depends on the answer being honest: a process that is lied to gets a quote that nobody accepts, or none.

    Raises:
        InputError: neither; this process is no enclave.
    """
    # Each imported where it is chosen: an enclave carries the one that it runs on, and no other, in memory.
    from ensconce.platform.simulated.door import SimulatedPlatform, is_door

    if is_door():
        return SimulatedPlatform()
    device = Path("/dev/attestation")
    if device.is_dir():
        from ensconce.platform.gramine import GraminePlatform

        return GraminePlatform(device)
    raise InputError(
        "platform.none",
        "this process is no enclave, so nobody vouches for it",
        rule="/dev/attestation (Gramine) or a door at descriptor 3 (simulated platform)",
        remedy="start it with `ensconce up`, or under gramine-sgx",
    )
