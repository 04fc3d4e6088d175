"""Names and addresses: DNS names of services, and where they listen or are reached."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import NamedTuple

from ensconce.errors import InputError

__all__ = ["Address", "check_domain", "check_host", "hold_port", "listen", "listen_unix"]

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_BACKLOG = 511


class Address(NamedTuple):
    """A host (DNS name or IP literal, IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, lowest_port: int = 1) -> Address:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

        Args:
            text: the address.
            lowest_port: 0 where a free port may be asked for.

        Raises:
            InputError: ``address.format``.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        digits = port.isascii() and port.isdecimal() and len(port) <= 5
        if not colon or not digits or not lowest_port <= int(port) <= 65535 or (":" in bare) != bracketed:
            raise _not_an_address(text, lowest_port)
        try:
            return cls(check_host(bare), int(port))
        except InputError:
            raise _not_an_address(text, lowest_port) from None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_domain(name: str) -> str:
    """A DNS name in lower case, as RFC 1123 section 2.1 has host names: labels of letters, digits and hyphens.

    Raises:
        InputError: ``address.domain``.
    """
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise InputError(
            "address.domain",
            "this is no DNS name",
            found=repr(name[:100]),
            rule="labels of a-z, 0-9 and hyphens, in lower case, such as digits.example.test",
        )
    return name


def check_host(host: str) -> str:
    """An IP literal in its usual form (IPv6 without brackets), or a DNS name in lower case.

    Raises:
        InputError: ``address.domain``: it is neither.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return check_domain(host.lower())


def listen(address: Address, check: str) -> socket.socket:
    """A listening TCP socket that does not block; port 0 takes a free one.

    Args:
        address: where; ``::`` does not take the IPv4 port as well.
        check: what the error is called, such as ``provisioning.address``.

    Raises:
        InputError: the address is taken, not this machine's, or not allowed to this user.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            check,
            f"cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}",
            found=str(address),
            remedy=_remedy(error.errno, address.port),
        ) from error
    listener.setblocking(False)
    return listener


def listen_unix(path: Path, check: str, *, private: bool) -> socket.socket:
    """A listening Unix socket that does not block, in the place of one that a program left there which has ended.

    Args:
        path: at most 107 bytes (unix(7)).
        check: what the error is called, such as ``proxy.listen``.
        private: whether it is for this user alone, and not for whoever the umask lets in.

    Raises:
        InputError: it cannot be had; among others, where a server listens already.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
        # The mode of what is bound: nobody else can connect in between.
        before = os.umask(0o177) if private else None
        try:
            listener.bind(str(path))
        finally:
            if before is not None:
                os.umask(before)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            check,
            f"cannot listen on unix:{path}: {error.strerror or error}",
            rule="a path of at most 107 bytes at which no other server listens",
            remedy="choose another path, in a folder of your own",
        ) from error
    listener.setblocking(False)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def hold_port() -> socket.socket:
    """Hold a port of the loopback address for a server that is to be started with its number.

    A port that was only looked up could be anybody's by the time it is used. As long as the returned socket is open,
    connections to this one are refused, the kernel gives it to nobody who asks for any port, and a server may listen at
    it, because both set SO_REUSEADDR (as Python's, gRPC's and nginx's servers do) and the one that holds it does not
    listen.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def _remedy(code: int | None, port: int) -> str:
    match code:
        case errno.EADDRINUSE:
            return f"stop what listens there (`ss -ltnp 'sport = :{port}'` names it), or choose another port"
        case errno.EACCES:
            return "choose a port of 1024 or above"
    return "choose an address of this machine (`ip addr` lists them)"


def _not_an_address(text: str, lowest_port: int) -> InputError:
    return InputError(
        "address.format",
        "this is no address",
        found=repr(text[:100]),
        rule=f"HOST:PORT or [IPV6]:PORT, with a port from {lowest_port} to 65535",
        remedy="for example 127.0.0.1:8500",
    )
