"""The service's objects, written by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from .machine import ADDRESS
from .owner import DOMAIN, MODEL

NAMESPACE = "digits"
VENDOR = "10.96.80.81"
GRPC, REST, HEALTH = 8500, 8501, 8502
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def namespace() -> list[dict[str, Any]]:
    """The namespace, where nothing runs that needs rights."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}]


def vendor(image: str) -> list[dict[str, Any]]:
    """The simulated vendor, as a service at an address that is known beforehand."""
    container = {
        "name": "vendor",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["simulated", "serve", "--listen", "0.0.0.0:8081", "--home", "/run/ensconce/vendor"],
        "readinessProbe": {"httpGet": {"port": 8081, "path": "/healthz"}, "periodSeconds": 1},
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": "run", "mountPath": "/run/ensconce"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "run", "emptyDir": {}}], "securityContext": _POD}
    return [
        _deployment("simulated-vendor", 1, spec),
        _service("simulated-vendor", {"http": 8081}, VENDOR),
    ]


def service(image: str, bundle: Path, version: int, replicas: int) -> list[dict[str, Any]]:
    """A version of the model in the enclave of ``bundle``; what is not said of it stays as it is."""
    enclave = {
        name: base64.b64encode((bundle / "enclave" / name).read_bytes()).decode()
        for name in ("server.json", "server.manifest.sgx", "server.sig")
    }
    files = sorted((bundle / "models" / MODEL / str(version)).iterdir())
    model = {each.name: base64.b64encode(each.read_bytes()).decode() for each in files}
    maps = [_config(f"{MODEL}-enclave", enclave), _config(f"{MODEL}-{version}", model)]
    container = {
        "name": "replica",
        "image": image,
        "imagePullPolicy": "Never",
        "args": [
            *("replica", "run", "/opt/ensconce", "--platform", "simulated"),
            *("--vendor", f"http://{VENDOR}:8081", "--run", "/run/ensconce", "--health", f"0.0.0.0:{HEALTH}"),
        ],
        "ports": [{"containerPort": GRPC}, {"containerPort": REST}, {"containerPort": HEALTH}],
        "startupProbe": _probe("/livez", failureThreshold=60),
        "readinessProbe": _probe("/readyz", failureThreshold=2),
        "livenessProbe": _probe("/livez", failureThreshold=30),
        # The gateway forgets a pod that leaves while the pod still takes what comes.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "securityContext": _RESTRICTED,
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/ensconce"},
            *(
                {"name": "enclave", "mountPath": f"/opt/ensconce/enclave/{name}", "subPath": name, "readOnly": True}
                for name in enclave
            ),
            *(
                {
                    "name": "model",
                    "mountPath": f"/opt/ensconce/models/{MODEL}/{version}/{name}",
                    "subPath": name,
                    "readOnly": True,
                }
                for name in model
            ),
        ],
    }
    spec = {
        "containers": [container],
        "volumes": [
            {"name": "run", "emptyDir": {}},
            {"name": "enclave", "configMap": {"name": maps[0]["metadata"]["name"]}},
            {"name": "model", "configMap": {"name": maps[1]["metadata"]["name"]}},
        ],
        "securityContext": _POD,
        "terminationGracePeriodSeconds": 60,
    }
    return [*maps, _deployment(MODEL, replicas, spec), _service(MODEL, {"grpc": GRPC, "rest": REST}), *_routes()]


def _probe(path: str, **more: int) -> dict[str, Any]:
    return {"httpGet": {"port": HEALTH, "path": path}, "periodSeconds": 1, "timeoutSeconds": 5, **more}


def _config(name: str, data: dict[str, str]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    metadata = {"name": f"{name}-{digest}", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data, "immutable": True}


def _deployment(name: str, replicas: int, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {**spec, "automountServiceAccountToken": False, "enableServiceLinks": False},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _service(name: str, ports: dict[str, int], address: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "selector": {"app.kubernetes.io/name": name},
        "ports": [{"name": each, "port": port} for each, port in ports.items()],
    }
    if address:
        spec["clusterIP"] = address
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _routes() -> list[dict[str, Any]]:
    listeners = [
        {"name": name, "port": port, "protocol": "TLS", "hostname": DOMAIN, "tls": {"mode": "Passthrough"}}
        for name, port in (("grpc", GRPC), ("rest", REST))
    ]
    api = "gateway.networking.k8s.io/v1"
    gateway = {
        "apiVersion": api,
        "kind": "Gateway",
        "metadata": {"name": MODEL, "namespace": NAMESPACE},
        "spec": {"gatewayClassName": "nginx", "listeners": listeners},
    }
    routes = [
        {
            "apiVersion": api,
            "kind": "TLSRoute",
            "metadata": {"name": f"{MODEL}-{each['name']}", "namespace": NAMESPACE},
            "spec": {
                "parentRefs": [{"name": MODEL, "sectionName": each["name"]}],
                "hostnames": [DOMAIN],
                "rules": [{"backendRefs": [{"name": MODEL, "port": each["port"]}]}],
            },
        }
        for each in listeners
    ]
    return [gateway, *routes]


# The node's address is the gateway's: its Nginx runs on the node.
GATEWAY = f"{ADDRESS}:{GRPC}"
