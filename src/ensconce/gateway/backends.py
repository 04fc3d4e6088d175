"""What every gateway is, and the replicas behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ensconce.addresses import Address, check_host
from ensconce.errors import InputError

__all__ = ["ApiName", "Backend", "Gateway", "pools"]

ApiName = Literal["grpc", "rest"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A replica that is ready: where its two APIs listen.

    Args:
        name: the replica's name, for people.
        host: an IP literal or a DNS name.
        grpc_port: TCP port of the gRPC API.
        rest_port: TCP port of the REST API.

    Raises:
        InputError: the host is neither, or a port is not from 1 to 65535.
    """

    name: str
    host: str
    grpc_port: int
    rest_port: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", check_host(self.host))
        for port in (self.grpc_port, self.rest_port):
            if not 1 <= port <= 65535:
                raise InputError("gateway.backend", "a backend needs a TCP port", found=str(port), rule="1 to 65535")


class Gateway(Protocol):
    """Passes TLS through, unread, from two addresses to the replicas; routes on the name in the ClientHello.

    A gateway is the host's: it holds no key, and what it can record is what any host can record.
    """

    @property
    def kind(self) -> Literal["nginx", "embedded"]:
        """Which program passes the bytes."""

    @property
    def about(self) -> str:
        """The program's version and place, or why it is this one; for people."""

    @property
    def addresses(self) -> Mapping[ApiName, Address]:
        """Where it listens, with the real port where 0 was asked; empty before ``start``."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""

    def start(self, backends: Sequence[Backend]) -> None:
        """Listen, and pass connections to ``backends`` (which may be none yet: then all are closed at once).

        Raises:
            InputError: an address is taken or not to be had (``gateway.address``), or the program does not start.
        """

    def reload(self, backends: Sequence[Backend]) -> None:
        """Send new connections to ``backends`` from now on; those that exist stay until either side ends them.

        Raises:
            InputError: the gateway does not run, or refuses; what was before stays in force.
        """

    def stop(self) -> None:
        """Close the listeners, give connections a moment to end, cut them, leave no process. Idempotent."""


def pools(backends: Sequence[Backend]) -> dict[ApiName, list[Address]]:
    """The replicas' listeners, by API."""
    return {
        "grpc": [Address(backend.host, backend.grpc_port) for backend in backends],
        "rest": [Address(backend.host, backend.rest_port) for backend in backends],
    }
