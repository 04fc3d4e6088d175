"""``enclave/server.json``: what a replica is told, as a trusted file, so that the host can choose none of it.

The file is part of the measurement: another domain, another provisioning server or another authority is another
MRENCLAVE.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from ensconce import addresses
from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.servables import MODEL_NAME
from ensconce.strict import StrictModel

__all__ = ["EngineConfig", "ListenConfig", "ProvisioningConfig", "ReplicaConfig"]

_LIMIT = 1 << 20


def _valid(check: Callable[[str], object]) -> Callable[[str], str]:
    """A field's validator: the text as it stands, once ``check`` has accepted it."""

    def validator(value: str) -> str:
        try:
            check(value)
        except InputError as error:
            raise ValueError(error.rule) from None
        return value

    return validator


def _listen(value: str) -> None:
    # An enclave has no resolver that it could trust, so it binds to numbers only.
    host = addresses.Address.parse(value, lowest_port=0).host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InputError("address.host", "this is no IP address", rule="an IP address, such as 127.0.0.1:0") from None


Domain = Annotated[str, AfterValidator(_valid(addresses.check_domain))]
Address = Annotated[str, AfterValidator(_valid(addresses.Address.parse))]
ListenAddress = Annotated[str, AfterValidator(_valid(_listen))]
ModelName = Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]


class EngineConfig(StrictModel):
    """How the engine may use the machine.

    Attributes:
        threads: threads of one engine; 0 lets the engine use every core.
    """

    threads: Annotated[int, Field(ge=0, le=256)] = 0


class ListenConfig(StrictModel):
    """Numeric addresses to listen on; port 0 takes a free one, which ``ready.json`` then names."""

    grpc: ListenAddress = "127.0.0.1:0"
    rest: ListenAddress = "127.0.0.1:0"


class ProvisioningConfig(StrictModel):
    """Where keys and certificates come from.

    Attributes:
        servers: addresses, tried in this order.
        server_name: the name that the server's certificate must carry.
        ca_pem: the owner's authority, the only one that is believed; PEM.
    """

    servers: Annotated[tuple[Address, ...], Field(min_length=1, max_length=8)]
    server_name: Domain
    ca_pem: Annotated[str, Field(min_length=1, max_length=65536)]


class ReplicaConfig(StrictModel):
    """The whole file.

    Attributes:
        domain: the service's name; certificates are asked for it.
        models: names of the models that the replica serves, all their versions that are present and granted.
    """

    domain: Domain
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=64)]
    provisioning: ProvisioningConfig
    engine: EngineConfig = EngineConfig()
    listen: ListenConfig = ListenConfig()

    @classmethod
    def load(cls, path: Path) -> ReplicaConfig:
        """Read the file.

        Raises:
            InputError: it is missing, too long, not JSON, or a field is wrong or unknown.
        """
        return cls.parse(read_bounded(path, _LIMIT), str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> ReplicaConfig:
        """Read the file's bytes; ``name`` is for the error message.

        Raises:
            InputError: not JSON, or a field is wrong or unknown.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InputError(
                "enclave.config",
                f"{name} is wrong at {'.'.join(str(part) for part in first['loc']) or 'its start'}",
                found=first["msg"],
                remedy="build the enclave again with `ensconce enclave build`",
            ) from None

    def dump(self) -> bytes:
        """The file's bytes; the same configuration gives the same bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"
