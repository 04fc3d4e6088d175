import dataclasses
import hashlib
import tomllib

import pytest
from pydantic import ValidationError

from ensconce.enclave.config import BatchingConfig, ModelConfig, ServingConfig, VersionsConfig
from ensconce.enclave.image import Image
from ensconce.enclave.manifest import ALLOWED_FILES, ARGUMENTS, EnclaveSpec, render
from ensconce.enclave.trace import ENVIRONMENT
from ensconce.platform.manifest import parse_manifest


def test_what_is_rendered_is_read_back(spec: EnclaveSpec, small_image: Image) -> None:
    manifest = parse_manifest(render(spec, small_image).encode())
    assert manifest.entrypoint == "/usr/bin/python3.11"
    assert manifest.argv == ("/usr/bin/python3.11", *ARGUMENTS)
    assert dict(manifest.env) == ENVIRONMENT
    assert manifest.allowed_files == ALLOWED_FILES
    assert manifest.insecure == ()
    assert not manifest.debug
    assert (manifest.isv_prod_id, manifest.isv_svn) == (1, 1)
    assert manifest.enclave_size == 2 << 30
    trusted = {file.uri: file.sha256.hex() for file in manifest.trusted_files}
    assert trusted == {
        "file:enclave/server.json": hashlib.sha256(spec.config().dump()).hexdigest(),
        "file:enclave/image/lib/python3.11/os.pyc": "cd" * 32,
        "file:enclave/image/site/ensconce/errors.pyc": "ef" * 32,
        "file:/usr/bin/python3.11": "ab" * 32,
        "file:/usr/lib/libc.so.6": "ab" * 32,
    }
    assert {mount.path for mount in manifest.mounts} == {"/usr/bin/python3.11", "/usr/lib/libc.so.6"}


def test_it_asks_gramine_for_quotes_and_for_sigterm(spec: EnclaveSpec, small_image: Image) -> None:
    document = tomllib.loads(render(spec, small_image))
    assert document["sgx"]["remote_attestation"] == "dcap"
    assert document["sys"]["enable_sigterm_injection"] is True


def test_the_same_inputs_give_the_same_text(spec: EnclaveSpec, small_image: Image) -> None:
    assert render(spec, small_image) == render(dataclasses.replace(spec), small_image)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": "other.example.test"},
        {"models": (ModelConfig(name="digits"), ModelConfig(name="letters"))},
        {"models": (ModelConfig(name="digits", versions=VersionsConfig(latest=1)),)},
        {"models": (ModelConfig(name="digits", labels={"stable": 1}),)},
        {"models": (ModelConfig(name="digits", precision="bf16"),)},
        {"serving": ServingConfig(poll_seconds=0)},
        {"serving": ServingConfig(batching=BatchingConfig(max_batch_size=8))},
        {"serving": ServingConfig(metrics_path="/metrics")},
        {"serving": ServingConfig(allow_reload=True)},
        {"provisioning_servers": ("127.0.0.1:4434",)},
        {"provisioning_server_name": "impostor.example.test"},
        {"ca_pem": "-----BEGIN CERTIFICATE-----\nother"},
        {"engine_threads": 1},
        {"isv_prod_id": 2},
        {"isv_svn": 2},
        {"enclave_size": "1G"},
        {"max_threads": 32},
        {"debug": True},
    ],
)
def test_every_choice_is_in_the_manifest_and_so_in_the_measurement(
    spec: EnclaveSpec, small_image: Image, change: dict[str, object]
) -> None:
    assert render(dataclasses.replace(spec, **change), small_image) != render(spec, small_image)


def test_a_malformed_name_is_refused(spec: EnclaveSpec) -> None:
    with pytest.raises(ValidationError):
        dataclasses.replace(spec, domain="no spaces").config()
