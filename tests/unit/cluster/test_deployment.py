from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ensconce.cluster.deployment import Deployment
from ensconce.enclave.config import BatchingConfig, VersionsConfig
from ensconce.errors import InputError
from ensconce.provisioning.limits import Limits

GOOD: dict[str, Any] = {
    "version": 1,
    "service": {"domain": "digits.example.test", "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
    "replicas": 2,
    "platform": {"kind": "simulated", "pccs": "127.0.0.1:8081"},
    "provisioning": {
        "listen": "127.0.0.1:4433",
        "servers": ["127.0.0.1:4433"],
        "server_name": "provisioning.digits.example.test",
    },
    "enclave": {"isv_svn": 3},
    "models": [{"name": "digits"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    fields = copy.deepcopy(GOOD)
    *inner, last = path.split(".")
    here: Any = fields
    for name in inner:
        here = here[int(name)] if name.isdecimal() else here[name]
    here[last] = value
    return fields


def test_what_is_dumped_loads_to_the_same(tmp_path: Path) -> None:
    deployment = Deployment.check(GOOD)
    (tmp_path / "ensconce.yaml").write_text(deployment.dump())
    assert Deployment.load(tmp_path / "ensconce.yaml") == deployment


def test_how_it_is_served_is_measured_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "ensconce.yaml").write_text(
        Deployment.check(GOOD)
        .dump()
        .replace(
            "- name: digits\n",
            "- name: digits\n  versions:\n    latest: 2\n  labels:\n    stable: 3\n  precision: bf16\n",
        )
        + "serving:\n  poll_seconds: 5\n  metrics_path: /metrics\n  batching:\n    max_batch_size: 16\n"
    )
    deployment = Deployment.load(tmp_path / "ensconce.yaml")
    [model] = deployment.models
    assert model.versions == VersionsConfig(latest=2)
    assert (model.labels, model.precision) == ({"stable": 3}, "bf16")
    assert deployment.serving is not None
    assert deployment.serving.batching == BatchingConfig(max_batch_size=16)
    assert (deployment.serving.poll_seconds, deployment.serving.allow_reload) == (5, False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("replicas", 0),
        ("replicas", 65),
        ("replicas", "2"),
        ("service.domain", "Digits.example"),
        ("service.domain", "-a.example"),
        ("service.grpc", "127.0.0.1"),
        ("service.grpc", "127.0.0.1:65536"),
        ("service.rest", "a b:80"),
        ("gateway", "haproxy"),
        ("platform.kind", "none"),
        ("provisioning.servers", []),
        ("provisioning.status", "9433"),
        ("provisioning.limits", {"connections": 8}),
        ("models.0.versions", "all"),
        ("models.0.versions", {"latest": 1, "specific": [1]}),
        ("models.0.labels", {"stable": "1"}),
        ("models.0.precision", "int8"),
        ("serving", {"poll_seconds": "1"}),
        ("serving", {"batching": {"max_batch_size": 8, "allowed_batch_sizes": [4]}}),
        ("provisioning.limits", {"address_rate": 0.0}),
        ("provisioning.limits", {"address_rate": "1"}),
        ("provisioning.limits", {"address_burst": 0}),
        ("provisioning.limits", {"handshake_time": 1.0}),
        ("enclave.isv_svn", 0),
        ("enclave.isv_prod_id", 65536),
        ("models", []),
        ("models", [{"name": "a"}, {"name": "a"}]),
        ("models.0.name", "../etc"),
        ("models.0.engine", "magic"),
        ("state", {"kind": "sqlite", "path": "a\0b"}),
        ("state", {"kind": "postgresql", "url_file": ""}),
        ("platform.collateral", {"url": "https://pccs.test", "ca_file": "a\nb"}),
        ("platform.collateral", {"bundle": "a\x7f"}),
        ("keystore", {"kind": "vault", "address": "https://v.test", "key": "k", "token_file": "a\0"}),
        ("surprise", 1),
        ("service.tls", False),
    ],
)
def test_every_wrong_field_is_named(path: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Deployment.check(changed(path, value))
    assert path.split(".")[0] in str(caught.value)


def test_two_services_do_not_share_an_address() -> None:
    with pytest.raises(InputError, match="two addresses"):
        Deployment.check(changed("service.rest", "127.0.0.1:8500"))


def test_a_broken_file_names_its_line_and_what_would_be_valid(tmp_path: Path) -> None:
    file = tmp_path / "ensconce.yaml"
    file.write_text(Deployment.check(GOOD).dump().replace("replicas: 2", "replicas: many"))
    with pytest.raises(InputError) as caught:
        Deployment.load(file)
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text == "replicas: many")
    assert f"line {line}, field replicas" in str(caught.value)


def test_limits_are_those_of_the_file_and_for_the_rest_the_defaults() -> None:
    assert Deployment.check(GOOD).provisioning.limits is None
    deployment = Deployment.check(changed("provisioning.limits", {"address_rate": 5, "connections": 64}))
    assert deployment.provisioning.limits is not None
    assert deployment.provisioning.limits.limits() == Limits(address_rate=5.0, connections=64)
