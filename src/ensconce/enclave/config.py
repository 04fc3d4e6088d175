"""``enclave/server.json``: what a replica is told, as a trusted file, so that the host can choose none of it.

The file is part of the measurement: another domain, another provisioning server or another authority is another
MRENCLAVE.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from ensconce import addresses
from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.servables import MAX_VERSION, MODEL_NAME
from ensconce.strict import StrictModel

__all__ = [
    "MAX_LOADED",
    "BatchingConfig",
    "EngineConfig",
    "IpAddress",
    "ListenConfig",
    "ModelConfig",
    "ProvisioningConfig",
    "ReplicaConfig",
    "ServingConfig",
    "VersionsConfig",
]

MAX_LOADED = 64
"""Most versions that a replica serves at once: it asks for all their keys in one message."""
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
    _numeric(addresses.Address.parse(value, lowest_port=0).host)


def _numeric(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InputError("address.host", "this is no IP address", rule="an IP address, such as 127.0.0.1") from None


Domain = Annotated[str, AfterValidator(_valid(addresses.check_domain))]
Address = Annotated[str, AfterValidator(_valid(addresses.Address.parse))]
IpAddress = Annotated[str, AfterValidator(_valid(_numeric))]
ListenAddress = Annotated[str, AfterValidator(_valid(_listen))]
ModelName = Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]
Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
Label = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class EngineConfig(StrictModel):
    """How the engine may use the machine.

    Attributes:
        threads: threads of one engine; 0 lets the engine use every core.
    """

    threads: Annotated[int, Field(ge=0, le=256)] = 0


class ListenConfig(StrictModel):
    """Numeric addresses to listen on; port 0 takes a free one, which ``ready.json`` then names.

    So does a port that is taken: what runs alone in a pod may run beside others of its kind on one machine.
    """

    grpc: ListenAddress = "127.0.0.1:0"
    rest: ListenAddress = "127.0.0.1:0"

    @model_validator(mode="after")
    def _two_ports(self) -> ListenConfig:
        if self.fixed and self.grpc.rpartition(":")[2] == self.rest.rpartition(":")[2]:
            raise ValueError("grpc and rest are two ports")
        return self

    @property
    def fixed(self) -> bool:
        """Whether a port is named, and not any free one."""
        return not (self.grpc.endswith(":0") and self.rest.endswith(":0"))


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


class VersionsConfig(StrictModel):
    """Which versions of a model are served; every one that is there and granted when neither is given.

    Attributes:
        latest: the so many highest.
        specific: these, as far as they are there.
    """

    latest: Annotated[int, Field(ge=1, le=MAX_LOADED)] | None = None
    specific: Annotated[list[Version], Field(min_length=1, max_length=MAX_LOADED)] | None = None

    @model_validator(mode="after")
    def _one_policy(self) -> VersionsConfig:
        if self.latest is not None and self.specific is not None:
            raise ValueError("either latest or specific is given")
        return self


class ModelConfig(StrictModel):
    """A model that is served.

    Attributes:
        name: of the model.
        versions: which versions of it; all when None.
        labels: the version that each label means, whether it is there or not.
        precision: of the arithmetic; what the model itself says when None.
    """

    name: ModelName
    versions: VersionsConfig | None = None
    labels: Annotated[dict[Label, Version], Field(max_length=MAX_LOADED)] | None = None
    precision: Literal["f32", "bf16"] | None = None


class BatchingConfig(StrictModel):
    """TensorFlow Serving's batching parameters; see :class:`ensconce.serving.batching.parameters.Parameters`."""

    max_batch_size: _Count | None = None
    batch_timeout_micros: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    max_enqueued_batches: _Count | None = None
    num_batch_threads: _Count | None = None
    allowed_batch_sizes: Annotated[list[_Count], Field(max_length=256)] | None = None
    pad_variable_length_inputs: bool | None = None
    enable_large_batch_splitting: bool | None = None
    max_execution_batch_size: _Count | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> BatchingConfig:
        try:
            self.parameters()
        except InputError as error:
            raise ValueError(error.problem) from None
        return self

    def parameters(self) -> Any:
        """As the scheduler takes them.

        Raises:
            InputError: ``batching.parameters``, they do not fit together.
        """
        # Not imported by a replica that is not granted anything, nor by commands that have no batching to read.
        from ensconce.serving.batching.parameters import Parameters

        given = self.model_dump(exclude_none=True)
        if self.allowed_batch_sizes is not None:
            given["allowed_batch_sizes"] = tuple(self.allowed_batch_sizes)
        return Parameters(**given)


class ServingConfig(StrictModel):
    """How the server inside works.

    Attributes:
        poll_seconds: seconds between two looks for new versions; 0 looks only when the replica starts.
        batching: how requests are merged; adaptively, without a delay, when None.
        merge: whether they are merged at all.
        metrics_path: where REST tells metrics; nowhere when None.
        allow_reload: whether clients may change versions and labels of these models (``HandleReloadConfigRequest``).
        sealed_bodies: whether requests sealed to the enclave are taken, and whether predictions that are not are
            refused; neither when None.
    """

    poll_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    batching: BatchingConfig | None = None
    merge: bool = True
    metrics_path: Annotated[str, Field(pattern="^/[A-Za-z0-9._/-]{1,200}$")] | None = None
    allow_reload: bool = False
    sealed_bodies: Literal["accepted", "required"] | None = None

    @model_validator(mode="after")
    def _merges_as_asked(self) -> ServingConfig:
        if self.batching is not None and not self.merge:
            raise ValueError("batching says how requests are merged, so merge is true where it is given")
        return self

    @model_validator(mode="after")
    def _metrics_beside_the_api(self) -> ServingConfig:
        if self.metrics_path is not None and (self.metrics_path + "/").startswith(("/v1/", "/openapi.json/")):
            raise ValueError("metrics_path is a path beside /v1/ and /openapi.json")
        return self


class ReplicaConfig(StrictModel):
    """The whole file.

    Attributes:
        domain: the service's name; certificates are asked for it.
        models: the models that the replica serves.
    """

    domain: Domain
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1, max_length=64)]
    provisioning: ProvisioningConfig
    engine: EngineConfig = EngineConfig()
    listen: ListenConfig = ListenConfig()
    serving: ServingConfig = ServingConfig()

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
        if len({model.name for model in models}) != len(models):
            raise ValueError("every model is listed once")
        return models

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
