"""The enclave's side of the simulated platform: ask the CPU for quotes through the door, descriptor 3.

The door is an O_PATH descriptor of the daemon's socket. The daemon knows who knocks by the kernel's word (SO_PEERCRED);
nothing that this side says about itself counts. Part of the trusted code base, so: standard library only.
"""

from __future__ import annotations

import base64
import fcntl
import os
import stat

from ensconce.errors import InputError, UnreachableError
from ensconce.platform.simulated.wire import ask

__all__ = ["DOOR", "SimulatedPlatform", "is_door"]

DOOR = 3
"""The descriptor that enclaves are started with, besides 0 to 2."""

_TIMEOUT_S = 10.0


def is_door(descriptor: int = DOOR) -> bool:
    """Whether ``descriptor`` is an O_PATH descriptor of a socket: nothing else in the world hands such a thing out."""
    try:
        path_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_PATH
        return bool(path_only) and stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class SimulatedPlatform:
    """The platform of a process that the simulated CPU's daemon launched."""

    name = "simulated"

    def __init__(self, descriptor: int = DOOR) -> None:
        """Quote through the given door."""
        self._path = f"/proc/self/fd/{descriptor}"

    def quote(self, report_data: bytes) -> bytes:
        """A quote of this enclave over ``report_data``.

        Args:
            report_data: 64 bytes.

        Raises:
            InputError: not 64 bytes.
            RefusedError: this process is no enclave.
            UnreachableError: the daemon has gone, or answers what is no quote.
        """
        if len(report_data) != 64:
            raise InputError(
                "platform.report_data", "report data has the wrong length", found=f"{len(report_data)}", rule="64 bytes"
            )
        answer = ask(self._path, {"request": "quote", "report_data": report_data.hex()}, _TIMEOUT_S)
        try:
            return base64.b64decode(answer["quote"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreachableError("platform.daemon", "the simulated platform's answer is no quote") from error
