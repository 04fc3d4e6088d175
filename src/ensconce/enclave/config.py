"""``enclave/server.json``: what a replica is told, as a trusted file, so that the host can choose none of it.

The file is part of the measurement: another domain, another provisioning server or another authority is another
MRENCLAVE.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["EngineConfig", "ListenConfig", "ProvisioningConfig", "ReplicaConfig"]

_LIMIT = 1 << 20
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def _domain(value: str) -> str:
    if len(value) > 253 or not all(_LABEL.fullmatch(label) for label in value.split(".")):
        raise ValueError("a DNS name in lower case, such as digits.example.test")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("HOST:PORT with a port from 0 to 65535")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        _domain(host)
    return value


def _listen(value: str) -> str:
    # An enclave has no resolver that it could trust, so it binds to numbers only.
    ipaddress.ip_address(_address(value).rpartition(":")[0].removeprefix("[").removesuffix("]"))
    return value


Domain = Annotated[str, AfterValidator(_domain)]
Address = Annotated[str, AfterValidator(_address)]
ListenAddress = Annotated[str, AfterValidator(_listen)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EngineConfig(_Strict):
    """How the engine may use the machine.

    Attributes:
        threads: threads of one engine; 0 lets the engine use every core.
    """

    threads: Annotated[int, Field(ge=0, le=256)] = 0


class ListenConfig(_Strict):
    """Numeric addresses to listen on; port 0 takes a free one, which ``ready.json`` then names."""

    grpc: ListenAddress = "127.0.0.1:0"
    rest: ListenAddress = "127.0.0.1:0"


class ProvisioningConfig(_Strict):
    """Where keys and certificates come from.

    Attributes:
        servers: addresses, tried in this order.
        server_name: the name that the server's certificate must carry.
        ca_pem: the owner's authority, the only one that is believed; PEM.
    """

    servers: Annotated[tuple[Address, ...], Field(min_length=1, max_length=8)]
    server_name: Domain
    ca_pem: Annotated[str, Field(min_length=1, max_length=65536)]


class ReplicaConfig(_Strict):
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
