"""The part of the deployment file that is about the provisioning server."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from ensconce.enclave.config import Address as HostPort
from ensconce.enclave.config import Domain
from ensconce.provisioning.limits import Limits
from ensconce.strict import StrictModel

__all__ = ["LimitsEntry", "ProvisioningEntry"]

_DEFAULT = Limits()

Rate = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class LimitsEntry(StrictModel):
    """What strangers may cost the server: the fields of :class:`ensconce.provisioning.limits.Limits` of these names.

    Every field may be left out.
    """

    connections: Annotated[int, Field(ge=16, le=65536)] = _DEFAULT.connections
    connections_per_address: Count = _DEFAULT.connections_per_address
    address_rate: Rate = _DEFAULT.address_rate
    address_burst: Count = _DEFAULT.address_burst
    identity_rate: Rate = _DEFAULT.identity_rate
    identity_burst: Count = _DEFAULT.identity_burst

    def limits(self) -> Limits:
        """The limits, with the defaults for what the file does not speak of."""
        return dataclasses.replace(_DEFAULT, **self.model_dump())


class ProvisioningEntry(StrictModel):
    """The owner's provisioning server: where it listens, where replicas look for it, its TLS name, and its bounds.

    ``status`` is where it serves health, metrics and the log's head over HTTP; nowhere when absent.
    """

    listen: HostPort
    servers: Annotated[list[HostPort], Field(min_length=1, max_length=8)]
    server_name: Domain
    status: HostPort | None = None
    limits: LimitsEntry | None = None
