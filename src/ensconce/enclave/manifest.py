"""Gramine's manifest for a replica: rendered from a short description, the same text from the same inputs.

Source of the keys: Gramine 1.9, "Manifest syntax". Everything that a replica executes or is told is a trusted file;
argv and environment are fixed; the host is left two things, both harmless: which ciphertext lies in ``models/`` (it
opens under the right key and path or not at all) and the file in which the replica says where it listens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import tomli_w

from ensconce.enclave.config import (
    EngineConfig,
    ListenConfig,
    ModelConfig,
    ProvisioningConfig,
    ReplicaConfig,
    ServingConfig,
)
from ensconce.enclave.contents import ENTRY_MODULE
from ensconce.enclave.image import Image
from ensconce.enclave.trace import ENVIRONMENT, FLAGS

__all__ = [
    "ALLOWED_FILES",
    "ARGUMENTS",
    "BULK",
    "CHECKED",
    "CONFIG",
    "FOLDER",
    "HARMLESS_FILES",
    "EnclaveSpec",
    "render",
]

FOLDER = "enclave"
"""The enclave's folder, seen from a replica's working folder and from the bundle."""

CONFIG = f"{FOLDER}/server.json"
"""The replica's configuration, likewise."""

ARGUMENTS = (*FLAGS, "-m", ENTRY_MODULE, CONFIG)
"""The replica's command line, behind the interpreter's own path.

That path is written out: an interpreter that is called by its name alone, and has no PATH, takes its working directory
for the place where it was built, and runs what a file ``pybuilddir.txt`` there leads to.
"""

BULK = f"{FOLDER}/image/bulk"
"""Where libraries lie that a replica under Gramine checks itself (:mod:`ensconce.enclave.early`)."""

CHECKED = f"{FOLDER}/image/checked"
"""Where it puts them then, in the enclave's own memory."""

ALLOWED_FILES = ("file:models/", "file:ready.json", "file:ready.json.part")
"""What the host may change and the replica may write: ciphertext, and the note that it is ready."""

HARMLESS_FILES = (*ALLOWED_FILES, f"file:{BULK}/")
"""What a manifest of ours may allow: the same, and the libraries that nobody believes before they are checked."""


@dataclass(frozen=True, kw_only=True)
class EnclaveSpec:
    """What distinguishes one enclave from another.

    Attributes:
        domain: the service's name, for which its certificates are.
        models: the models that it serves.
        provisioning_servers: addresses of the owner's provisioning server, tried in this order.
        provisioning_server_name: the name that its certificate must carry.
        ca_pem: the owner's authority, PEM.
        listen: where it listens.
        engine_threads: threads of an engine; 0 for as many as there are cores.
        serving: how its server works.
        isv_prod_id: product id, 16 bits; 0 would make a policy by MRSIGNER accept anything of that signer.
        isv_svn: security version, 16 bits; raise it when an older build must not receive keys any more.
        platform: what launches it: the simulated platform, or Gramine on a CPU with SGX.
        hosts: addresses that names have inside, by name; Gramine alone.
        nameservers: addresses of servers that are asked for other names; Gramine alone.
        enclave_size: memory of the enclave, a power of two, as Gramine writes it; for Gramine None derives it.
        max_threads: thread slots of the enclave, Gramine's own helpers included; Gramine derives them.
        debug: make a debug enclave, whose memory the host can read; lint refuses to have it signed.
    """

    domain: str
    models: tuple[ModelConfig, ...]
    provisioning_servers: tuple[str, ...]
    provisioning_server_name: str
    ca_pem: str
    listen: ListenConfig = field(default_factory=ListenConfig)
    engine_threads: int = 0
    serving: ServingConfig = field(default_factory=ServingConfig)
    isv_prod_id: int = 1
    isv_svn: int = 1
    platform: Literal["simulated", "gramine"] = "simulated"
    hosts: Mapping[str, str] = field(default_factory=dict)
    nameservers: tuple[str, ...] = ()
    enclave_size: str | None = None
    max_threads: int = 64
    debug: bool = False

    def config(self) -> ReplicaConfig:
        """The configuration that replicas of this enclave read.

        Raises:
            pydantic.ValidationError: a name or an address is malformed.
        """
        return ReplicaConfig(
            domain=self.domain,
            models=self.models,
            provisioning=ProvisioningConfig(
                servers=self.provisioning_servers, server_name=self.provisioning_server_name, ca_pem=self.ca_pem
            ),
            engine=EngineConfig(threads=self.engine_threads),
            listen=self.listen,
            serving=self.serving,
        )


def render(spec: EnclaveSpec, image: Image) -> str:
    """The text of ``server.manifest.sgx``: TOML, with the hash of every file that the replica may open."""
    config = hashlib.sha256(spec.config().dump()).hexdigest()
    trusted = [{"uri": f"file:{CONFIG}", "sha256": config}]
    trusted += [{"uri": f"file:{FOLDER}/image/{file.path}", "sha256": file.sha256} for file in image.files]
    trusted += [{"uri": f"file:{file.path}", "sha256": file.sha256} for file in image.system_files]
    document: dict[str, Any] = {
        "libos": {"entrypoint": image.interpreter},
        "loader": {"log_level": "error", "argv": [image.interpreter, *ARGUMENTS], "env": dict(ENVIRONMENT)},
        "sys": {"enable_sigterm_injection": True},
        # The replica's working folder is the root by default; files of the system appear under their own names.
        "fs": {"mounts": [{"path": file.path, "uri": f"file:{file.path}"} for file in image.system_files]},
        "sgx": {
            "debug": spec.debug,
            "remote_attestation": "dcap",
            "edmm_enable": False,
            "enclave_size": spec.enclave_size or "2G",
            "max_threads": spec.max_threads,
            "isvprodid": spec.isv_prod_id,
            "isvsvn": spec.isv_svn,
            "allowed_files": list(ALLOWED_FILES),
            "trusted_files": trusted,
        },
    }
    return tomli_w.dumps(document)
