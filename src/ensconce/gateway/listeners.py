"""The gateway's listening sockets, opened by the supervisor and handed down.

Binding here, and not in nginx, gives three things: the exact reason when an address is not to be had, a real port where
0 was asked (nginx refuses port 0), and no gap between finding a free port and using it.
"""

from __future__ import annotations

import errno
import socket

from ensconce.errors import InputError
from ensconce.gateway.names import bracketed

__all__ = ["BACKLOG", "listen"]

BACKLOG = 511
"""Connections that the kernel keeps until the gateway accepts them; what nginx itself asks for on Linux."""


def listen(host: str, port: int) -> socket.socket:
    """A listening, non-blocking TCP socket on ``host`` (an IP literal or a name) and ``port`` (0: any free one).

    Raises:
        InputError: check ``gateway.address``; names the address and what to do.
    """
    shown = bracketed(host, port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(
            "gateway.address",
            f"the gateway cannot listen on {shown}: {error.strerror or error}",
            remedy="give an address of this machine in ensconce.yaml, such as 127.0.0.1:8500",
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Each address is listed by itself; [::] must not take the IPv4 port as well.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            "gateway.address",
            f"the gateway cannot listen on {shown}: {error.strerror or error}",
            found=shown,
            remedy=_remedy(error.errno, port),
        ) from error
    listener.setblocking(False)
    return listener


def _remedy(code: int | None, port: int) -> str:
    match code:
        case errno.EADDRINUSE:
            named = f"`ss -ltnp 'sport = :{port}'` names it"
            return f"stop the program that has it ({named}), or choose another port in ensconce.yaml"
        case errno.EACCES:
            return "choose a port of 1024 or above in ensconce.yaml"
        case errno.EADDRNOTAVAIL:
            return "choose an address that this machine has (`ip addr` lists them)"
    return "choose another address in ensconce.yaml"
