"""A host's copy of a bundle without the folder of its enclave's image, which no object needs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensconce.cluster.deployment import Deployment
from ensconce.cluster.kubernetes.bundle import read_values
from ensconce.cluster.kubernetes.objects import render
from ensconce.cluster.kubernetes.values import Values
from ensconce.enclave.config import ListenConfig, ModelConfig, ProvisioningConfig, ReplicaConfig, ServingConfig
from ensconce.enclave.sign import new_signing_key, sign_manifest
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.measurement import measure

HOST = {
    "image": "registry.example.test/ensconce/server@sha256:" + "ab" * 32,
    "models": {"url": "https://models.example.test/digits", "cidrs": ["192.0.2.128/25"]},
    "hosts": {"provisioning.example.test": "192.0.2.7"},
}
SGX = {"quoteProvider": "registry.example.test/aesmd@sha256:" + "cd" * 32}
MANIFEST = """
libos.entrypoint = "/usr/bin/python3"
loader.argv = ["/usr/bin/python3", "-m", "ensconce.enclave.replica"]
sgx.enclave_size = "2G"
sgx.max_threads = 64
sgx.isvprodid = 1
sgx.isvsvn = 1
"""


@pytest.fixture(scope="session")
def signing_key() -> Any:
    return new_signing_key()


@pytest.fixture
def bundle(tmp_path: Path, signing_key: Any) -> Callable[..., Path]:
    """Makes one; fields of the deployment file may be given, and where the enclave listens."""

    def make(listen: ListenConfig | None = None, **more: Any) -> Path:
        folder = tmp_path / "bundle"
        (folder / "enclave").mkdir(parents=True, exist_ok=True)
        fields = {
            "version": 1,
            "service": {"domain": "digits.example.test", "grpc": "0.0.0.0:443", "rest": "0.0.0.0:8443"},
            "replicas": 2,
            "platform": {"kind": "simulated", "pccs": "127.0.0.1:8081"},
            "provisioning": {
                "listen": "0.0.0.0:4433",
                "servers": ["provisioning.example.test:4433"],
                "server_name": "provisioning.digits.example.test",
            },
            "models": [{"name": "digits"}],
            "serving": {"metrics_path": "/metrics"},
            **more,
        }
        deployment = Deployment.check(fields)
        (folder / "ensconce.yaml").write_text(deployment.dump())
        config = ReplicaConfig(
            domain="digits.example.test",
            models=(ModelConfig(name="digits"),),
            provisioning=ProvisioningConfig(
                servers=tuple(deployment.provisioning.servers),
                server_name=deployment.provisioning.server_name,
                ca_pem="-----BEGIN CERTIFICATE-----\n",
            ),
            serving=deployment.serving or ServingConfig(),
            listen=listen or ListenConfig(grpc="0.0.0.0:8500", rest="0.0.0.0:8501"),
        )
        (folder / "enclave" / "server.json").write_bytes(config.dump())
        (folder / "enclave" / "server.manifest.sgx").write_text(MANIFEST)
        manifest = parse_manifest(MANIFEST.encode())
        signature = sign_manifest(manifest, measure(manifest), signing_key, date=datetime.date(2026, 11, 23))
        (folder / "enclave" / "server.sig").write_bytes(signature)
        (folder / "owner.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
        (folder / "models" / "digits" / "3").mkdir(parents=True, exist_ok=True)
        return folder

    return make


@pytest.fixture
def values(bundle: Callable[..., Path]) -> Callable[..., Values]:
    """Reads values from a bundle; those of the host may be changed."""

    def read(deployment: dict[str, Any] | None = None, **host: Any) -> Values:
        return read_values(bundle(**deployment or {}), None, {**HOST, **host})

    return read


@pytest.fixture
def gramine(values: Callable[..., Values]) -> Callable[..., Values]:
    """Values for SGX nodes."""

    def read(**sgx: Any) -> Values:
        platform = {"kind": "gramine", "pccs": "127.0.0.1:8081"}
        return values({"platform": platform}, sgx={**SGX, **sgx})

    return read


@pytest.fixture
def objects() -> Callable[[Values], dict[tuple[str, str], dict[str, Any]]]:
    """The objects by kind and name."""

    def make(values: Values) -> dict[tuple[str, str], dict[str, Any]]:
        return {(each["kind"], each["metadata"]["name"]): each for each in render(values)}

    return make


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    (tmp_path / "host.yaml").write_text(yaml.safe_dump(HOST))
    return tmp_path / "host.yaml"
