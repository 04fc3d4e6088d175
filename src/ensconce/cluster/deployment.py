"""The deployment file ``ensconce.yaml``: one strict description of a service, for one machine and for a cluster."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from ensconce.appraisal import strict_yaml
from ensconce.cluster.keystore_entry import FilePath, KeystoreEntry
from ensconce.cluster.provisioning_entry import ProvisioningEntry
from ensconce.enclave.config import Address as HostPort
from ensconce.enclave.config import Domain, IpAddress, ListenConfig, ModelConfig, ServingConfig
from ensconce.files import read_bounded
from ensconce.models.layout import Engine
from ensconce.strict import StrictModel

__all__ = [
    "CollateralEntry",
    "Deployment",
    "EnclaveEntry",
    "FolderState",
    "ModelEntry",
    "PlatformEntry",
    "PostgresqlState",
    "ProvisioningEntry",
    "ServiceEntry",
    "SqliteState",
]


class ServiceEntry(StrictModel):
    """Where clients reach the service, and the name that its certificates carry."""

    domain: Domain
    grpc: HostPort
    rest: HostPort

    @model_validator(mode="after")
    def _two_addresses(self) -> ServiceEntry:
        if self.grpc == self.rest:
            raise ValueError("grpc and rest are two addresses")
        return self


class CollateralEntry(StrictModel):
    """Where collateral comes from, when that is not the platform's own PCCS: a server, or a bundle file.

    Paths are relative to the folder of the deployment file.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/]", max_length=500)] | None = None
    ca_file: FilePath | None = None
    bundle: FilePath | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CollateralEntry:
        if (self.url is None) == (self.bundle is None):
            raise ValueError("either url or bundle is given")
        if self.ca_file is not None and not (self.url or "").startswith("https://"):
            raise ValueError("ca_file is for an https url")
        return self


class PlatformEntry(StrictModel):
    """What measures and quotes the replicas, and where collateral for its quotes comes from."""

    kind: Literal["simulated", "gramine"]
    pccs: HostPort
    collateral: CollateralEntry | None = None

    def collateral_from(self, folder: Path) -> tuple[str, Path | None]:
        """The URL of a server, or the path of a bundle file; and the server's CA file. Paths begin in ``folder``."""
        entry = self.collateral
        if entry is None:
            return f"http://{self.pccs}", None
        source = entry.url if entry.url is not None else str(folder / str(entry.bundle))
        return source, None if entry.ca_file is None else folder / entry.ca_file


class EnclaveEntry(StrictModel):
    """What the enclave's signature says beside its measurement, and where the enclave listens.

    A policy by MRSIGNER asks for the first two. Without ``listen``, a replica takes free ports of its machine alone.
    ``threads`` are an engine's, 0 for as many as there are cores. The rest is for Gramine: ``size`` is the enclave's
    memory instead of what is derived, and names are looked up in ``hosts``, then at ``nameservers``, nowhere else.
    """

    isv_prod_id: Annotated[int, Field(ge=1, le=0xFFFF)] = 1
    isv_svn: Annotated[int, Field(ge=1, le=0xFFFF)] = 1
    listen: ListenConfig | None = None
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    size: Annotated[str, Field(pattern="^(256M|512M|1G|2G|4G|8G|16G|32G|64G|128G)$")] | None = None
    hosts: Annotated[dict[Domain, IpAddress], Field(max_length=64)] | None = None
    nameservers: Annotated[list[IpAddress], Field(min_length=1, max_length=3)] | None = None


class FolderState(StrictModel):
    """Documents and log are in the owner's folder: one provisioning server, or several on this machine."""

    kind: Literal["folder"] = "folder"


class SqliteState(StrictModel):
    """Documents and log are in a SQLite database on a disk of this machine; a relative path is the owner folder's."""

    kind: Literal["sqlite"]
    path: FilePath


class PostgresqlState(StrictModel):
    """Documents and log are in a PostgreSQL database. Its URL may hold a password: it is in a file of its own, 0600."""

    kind: Literal["postgresql"]
    url_file: FilePath


class ModelEntry(ModelConfig):
    """A model that every replica serves: its versions that are present, whose keys are live, and that it asks for."""

    engine: Literal["openvino", "tensorflow-serving"] = "openvino"

    @property
    def form(self) -> Engine:
        """What its versions are on disk: Google's program reads SavedModels."""
        return "tensorflow" if self.engine == "tensorflow-serving" else self.engine

    @property
    def only_version(self) -> int:
        """The one version that it names; the deployment has been checked to name one where the engine demands it."""
        assert self.versions is not None
        assert self.versions.specific is not None
        return self.versions.specific[0]


class Deployment(StrictModel):
    """The whole file. ``docs/reference/deployment.md`` describes each field."""

    version: Literal[1]
    service: ServiceEntry
    replicas: Annotated[int, Field(ge=1, le=64)]
    gateway: Literal["auto", "nginx", "embedded"] = "auto"
    platform: PlatformEntry
    provisioning: ProvisioningEntry
    enclave: EnclaveEntry = EnclaveEntry()
    models: Annotated[list[ModelEntry], Field(min_length=1, max_length=64)]
    serving: ServingConfig | None = None
    state: Annotated[FolderState | SqliteState | PostgresqlState, Field(discriminator="kind")] = FolderState()
    keystore: KeystoreEntry | None = None

    @model_validator(mode="after")
    def _only_gramine_is_told(self) -> Deployment:
        entry = self.enclave
        if self.platform.kind != "gramine" and (entry.size, entry.hosts, entry.nameservers) != (None, None, None):
            raise ValueError("enclave.size, enclave.hosts and enclave.nameservers are for platform.kind gramine")
        return self

    @property
    def is_tensorflow_serving(self) -> bool:
        """Google's own program serves, not ours."""
        return any(model.engine == "tensorflow-serving" for model in self.models)

    @model_validator(mode="after")
    def _googles_program_has_one_key(self) -> Deployment:
        if not self.is_tensorflow_serving:
            return self
        if self.platform.kind != "gramine":
            raise ValueError("engine tensorflow-serving needs platform.kind gramine; choose that, or engine openvino")
        model = self.models[0]
        specific = None if model.versions is None else model.versions.specific
        if len(self.models) > 1 or specific is None or len(specific) != 1:
            raise ValueError("engine tensorflow-serving serves one model and one version, versions: {specific: [N]}")
        serving = self.serving or ServingConfig()
        if model.precision or serving.metrics_path or serving.allow_reload or serving.sealed_bodies:
            raise ValueError(
                "precision, metrics_path, allow_reload and sealed_bodies are not for engine tensorflow-serving"
            )
        return self

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: list[ModelEntry]) -> list[ModelEntry]:
        if len({model.name for model in models}) != len(models):
            raise ValueError("every model is listed once")
        return models

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read and check the file.

        Raises:
            InputError: the file is missing, is not YAML, or has a wrong or unknown field; names line and field.
        """
        return _read(read_bounded(path, strict_yaml.MAX_BYTES), str(path))

    @classmethod
    def check(cls, fields: dict[str, Any]) -> Deployment:
        """A deployment from plain fields, as a command line gives them.

        Raises:
            InputError: as :meth:`load`.
        """
        return strict_yaml.parse(yaml.safe_dump(fields, sort_keys=False).encode(), "the deployment").validate(cls)

    def dump(self) -> str:
        """The file's text, with a line on each part."""
        body = yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False)
        return (
            "# What is served, by how many replicas, behind which addresses. Unknown fields are errors.\n"
            "# Reference: docs/reference/deployment.md\n" + body
        )


@functools.lru_cache(maxsize=8)
def _read(text: bytes, name: str) -> Deployment:
    """One command asks for the same file several times, and parsing it is what takes time."""
    return strict_yaml.parse(text, name).validate(Deployment)
