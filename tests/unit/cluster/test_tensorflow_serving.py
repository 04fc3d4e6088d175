from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.policy_identity import WireV1
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import write_policy
from ensconce.cluster.tensorflow_serving import spec_of, wire_v1_of
from ensconce.enclave.build import EnclaveIdentity
from ensconce.errors import InputError

GOOD: dict[str, Any] = {
    "version": 1,
    "service": {"domain": "resnet.example.test", "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
    "replicas": 2,
    "platform": {"kind": "gramine", "pccs": "127.0.0.1:8081"},
    "provisioning": {
        "listen": "127.0.0.1:4433",
        "servers": ["10.1.2.3:4433"],
        "server_name": "provisioning.resnet.example.test",
    },
    "enclave": {"threads": 4, "listen": {"grpc": "0.0.0.0:9000", "rest": "0.0.0.0:9001"}, "size": "4G"},
    "models": [{"name": "resnet", "engine": "tensorflow-serving", "versions": {"specific": [3]}}],
    "serving": {"batching": {"max_batch_size": 8, "batch_timeout_micros": 0}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    fields = copy.deepcopy(GOOD)
    place: Any = fields
    *parents, last = path.split(".")
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    return fields


def test_the_deployment_file_describes_the_enclave() -> None:
    deployment = Deployment.check(GOOD)
    spec = spec_of(deployment, "pem")
    assert (spec.model, spec.version, spec.port, spec.threads, spec.enclave_size) == ("resnet", 3, 9000, 4, "4G")
    assert spec.batching is not None
    assert spec.batching.max_batch_size == 8
    assert deployment.models[0].form == "tensorflow"
    assert wire_v1_of(deployment) == WireV1(secret="model/resnet/3", form="raw")
    assert spec_of(Deployment.check(changed("enclave", {})), "pem").port == 8500


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("platform.kind", "simulated", "gramine"),
        ("models.0.versions", {"latest": 1}, "specific"),
        ("models.0.versions", {"specific": [1, 2]}, "specific"),
        ("models", [*GOOD["models"], {"name": "other", "engine": "tensorflow-serving"}], "one model"),
        ("models", [*GOOD["models"], {"name": "other"}], "one model"),
        ("models.0.precision", "bf16", "precision"),
        ("serving", {"metrics_path": "/metrics"}, "metrics_path"),
        ("serving", {"allow_reload": True}, "allow_reload"),
        ("serving", {"sealed_bodies": "accepted"}, "sealed_bodies"),
    ],
)
def test_what_the_program_cannot_do_is_refused(path: str, value: Any, word: str) -> None:
    fields = changed(path, value)
    if path == "platform.kind":
        del fields["enclave"]
    with pytest.raises(InputError, match=word):
        Deployment.check(fields)


def test_our_own_server_asks_for_its_keys_itself() -> None:
    fields = changed("models", [{"name": "resnet"}])
    assert wire_v1_of(Deployment.check(fields)) is None


def test_an_owner_needs_the_version_before_its_enclave_and_gives_its_key_over_wire_v1(tmp_path: Path) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", Deployment.check(GOOD))
    with pytest.raises(InputError) as caught:
        owner.build_enclave()
    assert caught.value.check == "tfserving.unsealed"
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"graph")
    assert owner.seal_model(tmp_path / "saved", "resnet", 3).engine == "tensorflow"
    identity = EnclaveIdentity(bytes(32), bytes(32), 1, 1)
    written = write_policy(owner, identity, "simulated:" + "00" * 32)
    assert written.policy.identities[0].wire_v1 == WireV1(secret="model/resnet/3", form="raw")


def test_without_the_program_there_is_nothing_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", Deployment.check(GOOD))
    (owner.bundle / "models" / "resnet" / "3").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        owner.build_enclave()
    assert caught.value.check == "tfserving.program"
