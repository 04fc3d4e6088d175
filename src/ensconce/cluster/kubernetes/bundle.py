"""The owner's part of the values: read from her bundle, of which a host has a copy."""

from __future__ import annotations

import base64
import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ensconce.addresses import Address
from ensconce.appraisal import strict_yaml
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.kubernetes.values import Values
from ensconce.enclave.build import MANIFEST, read_identity
from ensconce.enclave.config import ReplicaConfig
from ensconce.enclave.manifest import CONFIG, FOLDER
from ensconce.enclave.present import folders
from ensconce.enclave.tensorflow_serving import CONNECTION_AGE_S, port_in
from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, parse_manifest

__all__ = ["read_values"]

_LIMIT = 1 << 20
_CONFIG_MAP_BYTES = 1_000_000
# For what has begun on a connection when it ends.
_LAST_REQUESTS_S = 15


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
    try:
        values = strict_yaml.parse(text, "the values").validate(Values)
    except InputError as error:
        # A line of the merged text is one that nobody has seen.
        raise InputError(
            error.check,
            re.sub(r"^the values line \d+", "the values", error.problem),
            found=error.found,
            rule=error.rule,
            remedy="; ".join(filter(None, [error.remedy, _WHERE])),
        ) from None
    size = sum(map(len, (*values.enclave.files.values(), *values.enclave.binary_files.values())))
    if size > _CONFIG_MAP_BYTES:
        raise InputError(
            "kubernetes.size",
            "the enclave's files are too large for a ConfigMap",
            found=f"{size} bytes",
            rule=f"at most {_CONFIG_MAP_BYTES}",
        )
    return values


_WHERE = "in the host's file (--values), or by an option (--image, --models, --host)"
_OWNERS = frozenset({"domain", "enclave", "engine", "metricsPath", "platform", "provisioning"})


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
    service = deployment.service
    return {
        "name": re.sub("[^a-z0-9-]", "-", service.domain.partition(".")[0])[:40].strip("-") or "ensconce",
        "namespace": "ensconce",
        "platform": deployment.platform.kind,
        "engine": deployment.models[0].engine,
        "replicas": deployment.replicas,
        "enclave": _enclave(bundle),
        "hosts": dict(deployment.enclave.hosts or {}),
        **(_tensorflow_serving if deployment.is_tensorflow_serving else _our_server)(bundle, deployment),
    }


def _enclave(bundle: Path) -> dict[str, Any]:
    """The enclave's files beside its image; not the manifest before it was signed, which nothing needs to run."""
    measurement = read_identity(bundle).mr_enclave.hex()
    contents = {Path(MANIFEST).name: read_bounded(bundle / MANIFEST, MAX_MANIFEST_SIZE)}
    for path in sorted((bundle / FOLDER).iterdir()):
        if path.is_file() and path.name != "server.manifest":
            contents[path.name] = read_bounded(path, MAX_MANIFEST_SIZE)
    text, binary = {}, {}
    for name, data in contents.items():
        try:
            text[name] = data.decode()
        except UnicodeDecodeError:
            binary[name] = base64.b64encode(data).decode()
    return {"measurement": measurement, "files": text, "binaryFiles": binary}


def _tensorflow_serving(bundle: Path, deployment: Deployment) -> dict[str, Any]:
    """Google's program: gRPC alone, no metrics, and an end without a word to those who are connected."""
    manifest = parse_manifest(read_bounded(bundle / MANIFEST, MAX_MANIFEST_SIZE))
    return {
        "domain": deployment.service.domain,
        "metricsPath": None,
        "ports": {"grpc": port_in(manifest)},
        "provisioning": _provisioning(deployment, deployment.provisioning.servers),
        "probes": {"drainSeconds": CONNECTION_AGE_S + _LAST_REQUESTS_S},
        "route": {"grpcPort": Address.parse(deployment.service.grpc).port},
    }


def _provisioning(deployment: Deployment, servers: Sequence[str]) -> dict[str, Any]:
    if all(_is_of_this_machine(Address.parse(server)) for server in servers):
        raise InputError(
            "kubernetes.provisioning",
            "the enclave asks for its keys on its own machine alone, and finds nobody in a pod",
            found=", ".join(servers),
            rule="provisioning.servers with a name or an address that pods reach",
            remedy="add one to provisioning.servers in ensconce.yaml, build again",
        )
    return {"servers": list(servers), "nameservers": list(deployment.enclave.nameservers or ())}


def _is_of_this_machine(address: Address) -> bool:
    return address.host == "localhost" or address.host.startswith(("127.", "::1"))


def _our_server(bundle: Path, deployment: Deployment) -> dict[str, Any]:
    config = ReplicaConfig.load(bundle / CONFIG)
    ports = [Address.parse(address, lowest_port=0) for address in (config.listen.grpc, config.listen.rest)]
    if 0 in [address.port for address in ports] or any(map(_is_of_this_machine, ports)):
        raise InputError(
            "kubernetes.listen",
            "the enclave listens on free ports of its own machine alone, and nobody finds it in a pod",
            found=f"{config.listen.grpc} and {config.listen.rest}",
            rule="enclave.listen with two ports on all addresses",
            remedy="add `listen: {grpc: 0.0.0.0:8500, rest: 0.0.0.0:8501}` under enclave in ensconce.yaml, build again",
        )
    service = deployment.service
    return {
        "domain": config.domain,
        "metricsPath": config.serving.metrics_path,
        "ports": {"grpc": ports[0].port, "rest": ports[1].port},
        "provisioning": _provisioning(deployment, config.provisioning.servers),
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
    vendor = fields.setdefault("vendor", {}) if fields["platform"] == "simulated" else fields.get("vendor")
    if isinstance(vendor, dict):
        vendor.setdefault("url", f"http://{fields['name']}-simulated-vendor:8081")
        if vendor.get("serve") and vendor.get("address") and isinstance(fields["hosts"], dict):
            fields["hosts"].setdefault(str(urlsplit(str(vendor["url"])).hostname), vendor["address"])
    sgx = fields.setdefault("sgx", {}) if fields["platform"] == "gramine" else None
    if isinstance(sgx, dict):
        sgx.setdefault("epcMebibytes", _enclave_mebibytes(fields["enclave"]["files"][Path(MANIFEST).name]))
    if fields.get("autoscaling") and fields["metricsPath"] is None:
        raise InputError(
            "kubernetes.autoscaling",
            "replicas tell no metrics to scale by",
            rule="serving.metrics_path in ensconce.yaml; measured. TensorFlow Serving tells its own on REST: off",
            remedy="leave autoscaling out and set replicas and spare; or, with our own server, add the path and build"
            " the enclave again",
        )


def _enclave_mebibytes(manifest: str) -> int:
    """The enclave's size by its manifest: without EDMM, all of it is enclave memory from the start."""
    size = str(tomllib.loads(manifest)["sgx"]["enclave_size"])
    return int(size[:-1]) * {"M": 1, "G": 1024, "T": 1024**2}[size[-1]]
