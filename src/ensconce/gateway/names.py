"""DNS names and addresses as the gateways accept them: nothing else may reach a configuration file or a socket call."""

from __future__ import annotations

import ipaddress
import re

from ensconce.errors import InputError

__all__ = ["bracketed", "check_domain", "check_host"]

# LDH labels (RFC 1123 section 2.1), and the underscore that some resolvers allow.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)


def check_domain(name: str) -> str:
    """Return the name in lower case.

    Raises:
        InputError: it is not a DNS name of at most 253 characters.
    """
    lower = name.lower()
    if len(lower) > 253 or not all(_LABEL.fullmatch(label) for label in lower.split(".")):
        raise InputError(
            "gateway.domain",
            "the gateway routes on a DNS name, and this is none",
            found=repr(name[:80]),
            rule="labels of letters, digits and hyphens, such as digits.example.test",
            remedy="correct service.domain in ensconce.yaml",
        )
    return lower


def check_host(host: str) -> str:
    """Return ``host`` when it is an IP literal (IPv6 without brackets) or a DNS name.

    Raises:
        InputError: it is neither.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return check_domain(host)


def bracketed(host: str, port: int) -> str:
    """``HOST:PORT``, or ``[HOST]:PORT`` for an IPv6 literal (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
