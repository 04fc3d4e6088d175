"""Which gateway a deployment gets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.gateway.backends import ApiName, Gateway
from ensconce.gateway.embedded import EmbeddedGateway
from ensconce.gateway.nginx import NginxGateway
from ensconce.gateway.nginx_program import Nginx, find_nginx

__all__ = ["open_gateway"]

_log = logging.getLogger("ensconce.gateway")


def open_gateway(
    kind: Literal["auto", "nginx", "embedded"], folder: Path, *, grpc: Address, rest: Address, domain: str
) -> Gateway:
    """Choose a gateway; it is not started yet.

    Args:
        kind: ``auto`` takes nginx when one is there that can do it, and the embedded pass-through otherwise.
        folder: its own folder.
        grpc: host and port for the gRPC API.
        rest: host and port for the REST API.
        domain: the service's name.

    Raises:
        InputError: ``nginx`` was asked for and there is none (``gateway.nginx``), or the domain is no DNS name.
    """
    addresses: dict[ApiName, Address] = {"grpc": grpc, "rest": rest}
    if kind == "embedded":
        return EmbeddedGateway(folder, addresses, domain, "embedded pass-through (the deployment file asks for it)")
    found = find_nginx()
    if isinstance(found, Nginx):
        return NginxGateway(found, folder, addresses, domain)
    if kind == "nginx":
        raise InputError(
            "gateway.nginx",
            f"the deployment asks for nginx, and {found.reason}",
            remedy=f"{found.remedy}; or set `gateway: auto` in ensconce.yaml",
        )
    _log.info("passing TLS through without nginx: %s", found.reason)
    return EmbeddedGateway(folder, addresses, domain, f"embedded pass-through ({found.reason})")
