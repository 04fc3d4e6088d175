"""The owner's part of the values: read from her bundle, of which a host has a copy."""

from __future__ import annotations

import base64
import copy
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ensconce.addresses import Address
from ensconce.appraisal import strict_yaml
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.kubernetes.values import Values
from ensconce.enclave.build import MANIFEST, SIGSTRUCT, read_identity
from ensconce.enclave.config import ReplicaConfig
from ensconce.enclave.manifest import CONFIG
from ensconce.enclave.present import folders
from ensconce.errors import InputError
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE
from ensconce.files import read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE

__all__ = ["read_values"]

_LIMIT = 1 << 20
_CONFIG_MAP_BYTES = 1_000_000


def read_values(bundle: Path, host: Path | None, chosen: Mapping[str, Any]) -> Values:
    """What a deployment on Kubernetes is to be.

    Args:
        bundle: a copy of the owner's bundle, whose enclave is built; its image folder may be missing.
        host: a YAML file with values of the host's; these take precedence over the bundle's defaults, but what the
            owner decides is not among them.
        chosen: values from the command line, which take precedence over the file's.

    Raises:
        InputError: a file is missing or wrong, or something is left open that nobody but the host can say.
    """
    deployment = Deployment.load(bundle / "ensconce.yaml")
    given = _merged(_read(host), chosen)
    ports = given.get("ports")
    owners = {f"ports.{each}" for each in ports if each in ("grpc", "rest")} if isinstance(ports, dict) else set()
    for name in sorted((given.keys() & _OWNERS) | owners):
        raise InputError(
            "kubernetes.values",
            f"{name} is the owner's to say",
            rule="the values of a host",
            remedy=f"leave {name} out",
        )
    fields = copy.deepcopy(_merged(_defaults(bundle, deployment), given))
    _fill(bundle, deployment, fields)
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).encode()
    values = strict_yaml.parse(text, "the values").validate(Values)
    size = len(values.enclave.config) + len(values.enclave.manifest) + len(values.enclave.signature)
    if size > _CONFIG_MAP_BYTES:
        raise InputError(
            "kubernetes.size",
            "the enclave's files are too large for a ConfigMap",
            found=f"{size} bytes",
            rule=f"at most {_CONFIG_MAP_BYTES}",
        )
    return values


_OWNERS = frozenset({"domain", "enclave", "metricsPath", "platform", "provisioning"})


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    value = strict_yaml.parse(read_bounded(path, _LIMIT), str(path)).value
    if not isinstance(value, dict):
        raise InputError("kubernetes.values", f"{path} is not a mapping of values")
    return value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mapping by mapping; of two values ``over``'s."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(below, value)
        else:
            merged[name] = value
    return merged


def _defaults(bundle: Path, deployment: Deployment) -> dict[str, Any]:
    if deployment.is_tensorflow_serving:
        raise InputError(
            "kubernetes.engine",
            "there are no objects for the engine tensorflow-serving yet",
            rule="engine openvino",
            remedy="import the model for openvino, or write objects that start `gramine-sgx enclave/server`",
        )
    config = ReplicaConfig.load(bundle / CONFIG)
    ports = [Address.parse(address, lowest_port=0) for address in (config.listen.grpc, config.listen.rest)]
    if 0 in [address.port for address in ports] or any(address.host.startswith(("127.", "::1")) for address in ports):
        raise InputError(
            "kubernetes.listen",
            "the enclave listens on free ports of its own machine alone, and nobody finds it in a pod",
            found=f"{config.listen.grpc} and {config.listen.rest}",
            rule="enclave.listen with two ports on all addresses",
            remedy="add `enclave: {listen: {grpc: 0.0.0.0:8500, rest: 0.0.0.0:8501}}` to ensconce.yaml, build again",
        )
    identity = read_identity(bundle)
    service = deployment.service
    return {
        "name": re.sub("[^a-z0-9-]", "-", service.domain.partition(".")[0])[:40].strip("-") or "ensconce",
        "namespace": "ensconce",
        "platform": deployment.platform.kind,
        "domain": config.domain,
        "metricsPath": config.serving.metrics_path,
        "replicas": deployment.replicas,
        "ports": {"grpc": ports[0].port, "rest": ports[1].port},
        "enclave": {
            "measurement": identity.mr_enclave.hex(),
            "config": read_bounded(bundle / CONFIG, _LIMIT).decode(),
            "manifest": read_bounded(bundle / MANIFEST, MAX_MANIFEST_SIZE).decode(),
            "signature": base64.b64encode(read_bounded(bundle / SIGSTRUCT, SIGSTRUCT_SIZE)).decode(),
        },
        "provisioning": {"servers": list(config.provisioning.servers)},
        "hosts": dict(deployment.enclave.hosts or {}),
        "route": {"grpcPort": Address.parse(service.grpc).port, "restPort": Address.parse(service.rest).port},
    }


def _fill(bundle: Path, deployment: Deployment, fields: dict[str, Any]) -> None:
    """What follows from the host's choices and the bundle together; what is no mapping is refused afterwards."""
    models = fields.get("models")
    if isinstance(models, dict):
        found = [
            f"{model.name}/{number}"
            for model in deployment.models
            for number in sorted(folders(bundle / "models" / model.name))
        ]
        models.setdefault("versions", found)
        if "url" in models:
            models.setdefault("ownerKey", read_bounded(bundle / "owner.pub", _LIMIT).decode())
    vendor = fields.setdefault("vendor", {}) if fields["platform"] == "simulated" else None
    if isinstance(vendor, dict):
        vendor.setdefault("url", f"http://{fields['name']}-simulated-vendor:8081")
        if vendor.get("serve") and vendor.get("address") and isinstance(fields["hosts"], dict):
            fields["hosts"].setdefault(str(urlsplit(str(vendor["url"])).hostname), vendor["address"])
    sgx = fields.setdefault("sgx", {}) if fields["platform"] == "gramine" else None
    if isinstance(sgx, dict):
        sgx.setdefault("epcMebibytes", _enclave_mebibytes(fields["enclave"]["manifest"]))
    if fields.get("autoscaling") and fields["metricsPath"] is None:
        raise InputError(
            "kubernetes.autoscaling",
            "replicas tell no metrics to scale by",
            rule="serving.metrics_path in ensconce.yaml; measured",
            remedy="add it and build the enclave again, or leave autoscaling out",
        )


def _enclave_mebibytes(manifest: str) -> int:
    """The enclave's size by its manifest: without EDMM, all of it is enclave memory from the start."""
    size = str(tomllib.loads(manifest)["sgx"]["enclave_size"])
    return int(size[:-1]) * {"M": 1, "G": 1024, "T": 1024**2}[size[-1]]
