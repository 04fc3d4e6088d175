import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.enclave.config import ReplicaConfig
from ensconce.errors import InputError

GOOD: dict[str, Any] = {
    "domain": "digits.example.test",
    "models": [{"name": "digits"}],
    "provisioning": {
        "servers": ["127.0.0.1:4433", "[::1]:4433", "keys.example.test:4433"],
        "server_name": "keys.example.test",
        "ca_pem": "-----BEGIN CERTIFICATE-----\n",
    },
    "engine": {"threads": 2},
    "listen": {"grpc": "127.0.0.1:0", "rest": "[::1]:8501"},
}


def changed(path: str, value: object) -> bytes:
    document = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(document).encode()


def test_what_is_dumped_is_read_back(tmp_path: Path) -> None:
    config = ReplicaConfig.parse(json.dumps(GOOD).encode(), "x")
    path = tmp_path / "server.json"
    path.write_bytes(config.dump())
    assert ReplicaConfig.load(path) == config
    assert ReplicaConfig.load(path).dump() == config.dump()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("provisioning.surprise", 1),
        ("domain", "Digits.example.test"),
        ("domain", "-digits.test"),
        ("models", []),
        ("models", ["digits"]),
        ("models", "digits"),
        ("models", [{"name": "../digits"}]),
        ("models", [{"name": "digits"}, {"name": "digits"}]),
        ("models", [{"name": "digits", "surprise": 1}]),
        ("models", [{"name": "digits", "precision": "int8"}]),
        ("models", [{"name": "digits", "versions": "all"}]),
        ("models", [{"name": "digits", "versions": {"latest": 0}}]),
        ("models", [{"name": "digits", "versions": {"latest": 65}}]),
        ("models", [{"name": "digits", "versions": {"specific": []}}]),
        ("models", [{"name": "digits", "versions": {"specific": [0]}}]),
        ("models", [{"name": "digits", "versions": {"latest": 1, "specific": [1]}}]),
        ("models", [{"name": "digits", "labels": {"": 1}}]),
        ("models", [{"name": "digits", "labels": {"stable": 0}}]),
        ("serving", {"surprise": 1}),
        ("serving", {"poll_seconds": -1}),
        ("serving", {"poll_seconds": 1e9}),
        ("serving", {"metrics_path": "metrics"}),
        ("serving", {"metrics_path": "/v1/models"}),
        ("serving", {"metrics_path": "/openapi.json"}),
        ("serving", {"allow_reload": 1}),
        ("serving", {"sealed_bodies": True}),
        ("serving", {"batching": {"max_batch_size": 0}}),
        ("serving", {"batching": {"max_batch_size": 8, "allowed_batch_sizes": [4]}}),
        ("serving", {"batching": {"surprise": 8}}),
        ("serving", {"batching": {"max_batch_size": 8}, "merge": False}),
        ("provisioning.servers", []),
        ("provisioning.servers", ["127.0.0.1"]),
        ("provisioning.servers", ["127.0.0.1:65536"]),
        ("provisioning.ca_pem", ""),
        ("engine.threads", -1),
        ("engine.threads", "2"),
        ("listen.grpc", "localhost:0"),
        ("listen.rest", "127.0.0.1:x"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(path: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        ReplicaConfig.parse(changed(path, value), "enclave/server.json")
    assert caught.value.check == "enclave.config"
    assert path.split(".")[0] in caught.value.problem


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InputError):
        ReplicaConfig.parse(b"domain: x", "enclave/server.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        ReplicaConfig.load(tmp_path / "server.json")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        ReplicaConfig.parse(data, "x")
