"""The manifest for Google's own program: fixed arguments, one key, nothing allowed."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import Any

import pytest
from google.protobuf import text_format

from ensconce.enclave.config import BatchingConfig
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile
from ensconce.enclave.lint import lint_text
from ensconce.enclave.tensorflow_serving import (
    CONNECTION_AGE_S,
    TensorFlowServingSpec,
    port_in,
    render_tensorflow_serving,
    static_files,
)
from ensconce.enclave.tensorflow_serving_sizes import ServingSizes
from ensconce.errors import InputError
from ensconce.platform.manifest import parse_manifest
from ensconce.tfserving.messages import BatchingParameters, ModelServerConfig

SPEC = TensorFlowServingSpec(
    domain="resnet.example.test",
    model="resnet",
    version=3,
    provisioning_servers=("10.1.2.3:4433", "10.1.2.4:4433"),
    provisioning_server_name="provisioning.example.test",
    ca_pem="-----BEGIN CERTIFICATE-----\n",
    isv_prod_id=7,
)
IMAGE = Image(
    interpreter="system/tensorflow_model_server",
    files=tuple(
        ImageFile(path, 10, f"{number:064x}")
        for number, path in enumerate(
            (
                "gramine/ld-linux-x86-64.so.2",
                "gramine/libc.so.6",
                "gramine/libsecret_prov_attest.so",
                "gramine/libsysdb.so",
                "system/libstdc++.so.6",
                "system/tensorflow_model_server",
            )
        )
    ),
    system_files=(),
    left_out=(),
)
SIZES = ServingSizes.of(program=300 << 20, model=100 << 20, threads=4, batch_threads=None)


def rendered(**changes: Any) -> dict[str, Any]:
    return tomllib.loads(render_tensorflow_serving(dataclasses.replace(SPEC, **changes), IMAGE, SIZES))


def test_lint_has_nothing_to_refuse() -> None:
    text = render_tensorflow_serving(SPEC, IMAGE, SIZES)
    assert [(each.check, each.severity) for each in lint_text(text.encode())] == [
        # Wire v1 gives one key; TensorFlow Serving lets every client change what is served.
        ("lint.tfserving.reload", "note"),
        ("lint.key.shared", "note"),
    ]
    assert parse_manifest(text.encode()).isv_prod_id == 7


def test_arguments_are_fixed_and_rest_is_off() -> None:
    argv = rendered()["loader"]["argv"]
    assert argv[0] == "tensorflow_model_server"
    assert "--port=8500" in argv
    assert "--ssl_config_file=/enclave/ssl.cfg" in argv
    assert "--model_config_file=/enclave/models.config" in argv
    assert "--enable_profiler=false" in argv
    assert not [each for each in argv if "rest_api" in each]


def test_connections_grow_old_because_the_program_says_no_goodbye() -> None:
    argv = rendered()["loader"]["argv"]
    (arguments,) = [each for each in argv if each.startswith("--grpc_channel_arguments=")]
    age = int(arguments.removeprefix("--grpc_channel_arguments=grpc.max_connection_age_ms="))
    # gRPC takes up to a tenth more.
    assert 1000 <= age * 1.1 <= CONNECTION_AGE_S * 1000


def test_the_port_is_read_from_a_manifest_of_this_kind_alone() -> None:
    text = render_tensorflow_serving(dataclasses.replace(SPEC, port=9000), IMAGE, SIZES)
    assert port_in(parse_manifest(text.encode())) == 9000
    for other in ("--another=9000", "--port=", "--port=x"):
        with pytest.raises(InputError, match=r"enclave\.engine"):
            port_in(parse_manifest(text.replace("--port=9000", other).encode()))


def test_the_environment_is_gramines_own_provisioning_and_nothing_of_the_hosts() -> None:
    environment = rendered()["loader"]["env"]
    assert environment["LD_PRELOAD"] == "/enclave/image/gramine/libsecret_prov_attest.so"
    assert environment["SECRET_PROVISION_CONSTRUCTOR"] == "1"
    assert environment["SECRET_PROVISION_SET_KEY"] == "model"
    assert environment["SECRET_PROVISION_CA_CHAIN_PATH"] == "/enclave/ca.pem"
    assert environment["SECRET_PROVISION_SERVERS"] == "provisioning.example.test:4433"
    # As many heaps as the size was reckoned with.
    assert environment["MALLOC_ARENA_MAX"] == "4"
    assert "256 MiB for 4 heaps" in SIZES.size_reason
    assert all(isinstance(value, str) for value in environment.values())


def test_model_and_tls_key_are_encrypted_and_nothing_is_allowed() -> None:
    document = rendered()
    encrypted = [mount for mount in document["fs"]["mounts"] if mount.get("type") == "encrypted"]
    assert encrypted == [
        {"type": "encrypted", "path": "/models/resnet", "uri": "file:models/resnet", "key_name": "model"},
        {"type": "encrypted", "path": "/enclave/ssl.cfg", "uri": "file:enclave/ssl.cfg", "key_name": "model"},
    ]
    assert document["sgx"]["allowed_files"] == []
    trusted = {entry["uri"] for entry in document["sgx"]["trusted_files"]}
    assert "file:enclave/ssl.cfg" not in trusted
    assert {"file:enclave/ca.pem", "file:enclave/models.config", "file:enclave/hosts"} <= trusted
    assert document["loader"]["entrypoint"] == {"uri": "file:enclave/image/gramine/libsysdb.so", "sha256": f"{3:064x}"}


def test_names_lead_to_the_owners_servers_without_asking_anybody() -> None:
    files = static_files(dataclasses.replace(SPEC, hosts={"other.example.test": "10.9.9.9"}))
    assert files["hosts"].decode().splitlines() == [
        "127.0.0.1 localhost",
        "10.9.9.9 other.example.test",
        "10.1.2.3 provisioning.example.test",
        "10.1.2.4 provisioning.example.test",
    ]
    assert files["nsswitch.conf"] == b"hosts: files\n"
    assert static_files(dataclasses.replace(SPEC, nameservers=("10.0.0.53",)))["nsswitch.conf"] == b"hosts: files dns\n"


def test_a_server_by_another_name_could_not_be_believed() -> None:
    with pytest.raises(InputError) as caught:
        static_files(dataclasses.replace(SPEC, provisioning_servers=("owner.example.test:4433",)))
    assert caught.value.check == "enclave.provisioning"
    by_name = dataclasses.replace(SPEC, provisioning_servers=("provisioning.example.test:4433",))
    assert b"provisioning" not in static_files(by_name)["hosts"]


def test_the_version_is_pinned_with_its_labels() -> None:
    spec = dataclasses.replace(SPEC, labels={"stable": 3})
    config = text_format.Parse(static_files(spec)["models.config"].decode(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("resnet", "/models/resnet", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [3]
    assert dict(model.version_labels) == {"stable": 3}
    assert "--allow_version_labels_for_unavailable_models=true" in rendered(labels={"stable": 3})["loader"]["argv"]


def test_batching_is_a_trusted_file() -> None:
    batching = BatchingConfig(max_batch_size=8, batch_timeout_micros=0, allowed_batch_sizes=[4, 8], num_batch_threads=2)
    files = static_files(dataclasses.replace(SPEC, batching=batching))
    read = text_format.Parse(files["batching.config"].decode(), BatchingParameters())
    assert (read.max_batch_size.value, list(read.allowed_batch_sizes), read.num_batch_threads.value) == (8, [4, 8], 2)
    assert "--batching_parameters_file=/enclave/batching.config" in rendered(batching=batching)["loader"]["argv"]


def test_sizes_are_derived_and_said() -> None:
    assert SIZES.threads == 4 + 28 + 4 * 4
    assert SIZES.size_text == "2G"
    assert SIZES.grpc_threads == 8
    many = ServingSizes.of(program=300 << 20, model=None, threads=0, batch_threads=6)
    assert many.threads == 4 + 28 + 4 * 32 + 6
    assert many.size >= 300 << 20
    text = render_tensorflow_serving(SPEC, IMAGE, SIZES)
    assert f"# Needed: {SIZES.size_reason}." in text
    assert rendered(enclave_size="8G")["sgx"]["enclave_size"] == "8G"
