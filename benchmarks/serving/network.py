"""A loopback device on which TCP is paced by nothing but the two ends.

BBR, which some systems have as default, measures a path's rate by the times at which the peer's acknowledgements come,
and sends no faster. On loopback those are the times at which the reader was given a processor; after a moment in which
a model had them all, a client's system sends 600 KB in 20 ms and more instead of one. That measures the two processors
that load and servers share here, and no server.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from pathlib import Path
from typing import Final

__all__ = ["unpaced"]

_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_UNPACED: Final = ("reno", "cubic")
# linux/sched.h, net/if.h, bits/ioctls.h
_CLONE_NEWNET: Final = 0x40000000
_IFF_UP: Final = 0x1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914


def unpaced() -> str:
    """See that this thread, and what it starts from now on, has a loopback device without pacing.

    Where the system's congestion control paces, that takes a network of its own, which only root can make; without it,
    all stays as it is.

    Returns:
        what holds now, for people.
    """
    system = _CONTROL.read_text().strip()
    if system in _UNPACED:
        return system
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        problem = errno.errorcode.get(ctypes.get_errno(), "an error")
        return f"{system}, which paces: a network of its own could not be had ({problem})"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    _CONTROL.write_text(_UNPACED[0])
    return f"{_UNPACED[0]}, in a network of its own: the system's {system} paces"
