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
from ensconce.enclave.sign import sign_manifest
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.measurement import measure

HOST: dict[str, Any] = {
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
GOOGLES = MANIFEST.replace("/usr/bin/python3", "tensorflow_model_server").replace(
    '"-m", "ensconce.enclave.replica"', '"--port=8500", "--ssl_config_file=/enclave/ssl.cfg"'
)
CIPHERTEXT = bytes(range(256))


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
        # What nothing needs to run, and what every pod has of its image.
        (folder / "enclave" / "server.manifest").write_text("as it was before Gramine's tool read it")
        (folder / "enclave" / "image").mkdir(exist_ok=True)
        if deployment.platform.kind == "gramine":
            (folder / "enclave" / "hosts").write_text("127.0.0.1 localhost\n")
        _sign(folder / "enclave", MANIFEST, signing_key)
        (folder / "owner.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
        (folder / "models" / "digits" / "3").mkdir(parents=True, exist_ok=True)
        return folder

    return make


def _sign(enclave: Path, text: str, signing_key: Any) -> None:
    (enclave / "server.manifest.sgx").write_text(text)
    manifest = parse_manifest(text.encode())
    signature = sign_manifest(manifest, measure(manifest), signing_key, date=datetime.date(2026, 11, 23))
    (enclave / "server.sig").write_bytes(signature)


@pytest.fixture
def values(bundle: Callable[..., Path]) -> Callable[..., Values]:
    """Reads values from a bundle; those of the host may be changed."""

    def read(deployment: dict[str, Any] | None = None, **host: Any) -> Values:
        return read_values(bundle(**deployment or {}), None, {**HOST, **host})

    return read


@pytest.fixture
def gramine(values: Callable[..., Values]) -> Callable[..., Values]:
    """Values for SGX nodes."""

    def read(nameservers: list[str] | None = None, models: dict[str, Any] = HOST["models"], **sgx: Any) -> Values:
        platform = {"kind": "gramine", "pccs": "127.0.0.1:8081"}
        deployment = {"platform": platform, "enclave": {"nameservers": nameservers} if nameservers else {}}
        return values(deployment, sgx={**SGX, **sgx}, models=models)

    return read


@pytest.fixture
def googles_bundle(bundle: Callable[..., Path], signing_key: Any) -> Callable[..., Path]:
    """A host's copy of a bundle whose enclave runs TensorFlow Serving."""

    def make(**more: Any) -> Path:
        folder = bundle(
            **{
                "platform": {"kind": "gramine", "pccs": "127.0.0.1:8081"},
                "models": [{"name": "digits", "engine": "tensorflow-serving", "versions": {"specific": [3]}}],
                "serving": None,
                **more,
            }
        )
        enclave = folder / "enclave"
        (enclave / "server.json").unlink()
        for name, text in {"ca.pem": "-----BEGIN", "models.config": "model_config_list {", "resolv.conf": ""}.items():
            (enclave / name).write_text(text)
        (enclave / "ssl.cfg").write_bytes(CIPHERTEXT)
        _sign(enclave, GOOGLES, signing_key)
        return folder

    return make


@pytest.fixture
def googles(googles_bundle: Callable[..., Path]) -> Callable[..., Values]:
    """Values for TensorFlow Serving."""

    def read(deployment: dict[str, Any] | None = None, **host: Any) -> Values:
        return read_values(googles_bundle(**deployment or {}), None, {**HOST, "sgx": SGX, **host})

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
