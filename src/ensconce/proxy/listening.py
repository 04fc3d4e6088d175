"""Where the proxy may listen: in the clear on this machine only."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

from ensconce.addresses import Address, listen, listen_unix
from ensconce.errors import InputError

__all__ = ["Place", "is_local", "open_listener", "place_in"]

Place = Address | Path
"""A TCP address, or the path of a Unix socket."""

_UNIX: Final = "unix:"
# unix(7): sun_path has 108 bytes, a NUL among them.
_LONGEST_PATH: Final = 107


def place_in(text: str) -> Place:
    """Read ``HOST:PORT``, port 0 for a free one, or ``unix:PATH``.

    Raises:
        InputError: ``address.format``, or ``proxy.socket``: the path is empty or too long.
    """
    if not text.startswith(_UNIX):
        return Address.parse(text, lowest_port=0)
    path = text.removeprefix(_UNIX)
    if not 0 < len(os.fsencode(path)) <= _LONGEST_PATH:
        raise InputError(
            "proxy.socket", "this is no path of a socket", found=path[:120], rule=f"1 to {_LONGEST_PATH} bytes"
        )
    return Path(path)


def is_local(place: Place) -> bool:
    """Whether only this machine can reach it. A name is not: who knows what it stands for tomorrow."""
    if isinstance(place, Path):
        return True
    try:
        return place.host == "localhost" or ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return False


def open_listener(place: Place, *, encrypted: bool) -> socket.socket:
    """A listening socket that does not block; a Unix socket is for this user alone.

    Args:
        place: where.
        encrypted: whether TLS is spoken there.

    Raises:
        InputError: ``proxy.cleartext``: others could read what comes; ``proxy.listen``: it cannot be had.
    """
    if not encrypted and not is_local(place):
        raise InputError(
            "proxy.cleartext",
            "beyond this machine the proxy does not listen in the clear",
            found=str(place),
            rule="a loopback address or unix:PATH; others with TLS only",
            remedy="listen on 127.0.0.1, or give --tls-cert and --tls-key",
        )
    if isinstance(place, Address):
        return listen(place, "proxy.listen")
    return listen_unix(place, "proxy.listen", private=True)
