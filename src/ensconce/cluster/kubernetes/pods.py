"""The Deployments: replicas, and the simulated vendor. Both fit the restricted Pod Security Standard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ensconce.cluster.kubernetes.naming import PLATFORM, metadata, replica_labels, selector
from ensconce.cluster.kubernetes.values import Sgx, Values

__all__ = ["replicas", "vendor"]

Object = dict[str, Any]

USER = 10001
"""Whom the images run as."""
BUNDLE = "/opt/ensconce"
RUN = "/run/ensconce"

_PROBE_S = 2
# What `replica run` lets requests that are under way take, and its own end.
_STOP_S = 30
_CONTAINER: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
_EPC: dict[str, str] = {
    "intel": "sgx.intel.com/epc",
    "azure": "kubernetes.azure.com/sgx_epc_mem_in_MiB",
    "alibaba": "alibabacloud.com/sgx_epc_MiB",
}


def replicas(values: Values, config_map: str) -> Object:
    """The Deployment of the replicas: a new one is ready before an old one goes."""
    spec: Object = {
        # Left to the autoscaler where there is one: an object that names a number sets it back at each apply.
        **({} if values.autoscaling is not None else {"replicas": values.replicas + values.spare}),
        "revisionHistoryLimit": 3,
        "minReadySeconds": 5,
        "progressDeadlineSeconds": values.probes.start_seconds + 300,
        # Rounded up: one of few, a hundred of a thousand. Those that find no room yet wait, and take nothing away.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0}},
        "selector": {"matchLabels": replica_labels(values)},
        "template": {"metadata": _pod_metadata(values), "spec": _pod(values, config_map)},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(values), "spec": spec}


def _pod_metadata(values: Values) -> Object:
    annotations = {"ensconce/mr-enclave": values.enclave.measurement, "ensconce/domain": values.domain}
    if values.metrics_path is not None:
        annotations["ensconce/metrics-path"] = values.metrics_path
    if values.sgx is not None:
        # Intel's webhook leaves the socket to the container of this name, in a volume of the pod.
        annotations["sgx.intel.com/quote-provider"] = "aesmd"
    return {"labels": metadata(values)["labels"], "annotations": annotations}


def _pod(values: Values, config_map: str) -> Object:
    sgx = values.sgx
    security: Object = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, **_pod_security()}
    if sgx is not None and sgx.group is not None:
        security["supplementalGroups"] = [sgx.group]
    pod: Object = {
        "serviceAccountName": values.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security,
        "terminationGracePeriodSeconds": values.probes.drain_seconds + _STOP_S,
        "topologySpreadConstraints": [
            _spread(values, key) for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
    }
    if values.hosts:
        pod["hostAliases"] = [{"ip": address, "hostnames": [name]} for name, address in sorted(values.hosts.items())]
    if values.scheduling.node_selector:
        pod["nodeSelector"] = dict(sorted(values.scheduling.node_selector.items()))
    if tolerations := _tolerations(values):
        pod["tolerations"] = tolerations
    if beforehand := _init_containers(values):
        pod["initContainers"] = beforehand
    return {**pod, "containers": [_replica(values)], "volumes": _volumes(values, config_map)}


def _pod_security() -> Object:
    return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def _spread(values: Values, key: str) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": replica_labels(values)},
        # Each revision for itself, so that an update does not pile the new pods up where the old ones were few.
        "matchLabelKeys": ["pod-template-hash"],
    }


def _tolerations(values: Values) -> list[Object]:
    taints = [{"key": each.key, "operator": "Exists", "effect": each.effect} for each in values.scheduling.tolerations]
    if values.sgx is not None and values.sgx.plugin != "intel":
        # These two clouds taint their SGX nodes with the resource's name.
        taints.append({"key": _EPC[values.sgx.plugin], "operator": "Exists", "effect": "NoSchedule"})
    return taints


def _init_containers(values: Values) -> list[Object]:
    containers: list[Object] = []
    models = values.models
    if models.url is not None:
        wanted = [part for version in models.versions for part in ("--model", version)]
        key = "/etc/ensconce/owner.pub"
        containers.append(
            {
                **_container(values, "models"),
                "image": models.image or values.image,
                "args": ["model", "pull", models.url, f"{BUNDLE}/models", "--owner-key", key, *wanted],
                "resources": _resources("250m", "256Mi"),
                "volumeMounts": [
                    {"name": "models", "mountPath": f"{BUNDLE}/models"},
                    {"name": "enclave", "mountPath": key, "subPath": "owner.pub", "readOnly": True},
                    {"name": "run", "mountPath": RUN},
                ],
            }
        )
    if values.sgx is not None:
        containers.append(_quote_provider(values.sgx))
    return containers


def _quote_provider(sgx: Sgx) -> Object:
    """Intel's AESM beside the replica: it starts before it and ends after it."""
    return {
        "name": "aesmd",
        "image": sgx.quote_provider,
        "restartPolicy": "Always",
        "securityContext": _CONTAINER,
        "resources": _resources("100m", "128Mi", _devices(sgx, 1)),
        "volumeMounts": [{"name": "aesmd", "mountPath": "/var/run/aesmd"}],
    }


def _replica(values: Values) -> Object:
    ports, probes = values.ports, values.probes
    run = ["replica", "run", BUNDLE, "--platform", values.platform, "--run", RUN, "--health", f"0.0.0.0:{ports.health}"]
    if values.vendor is not None:
        run += ["--vendor", values.vendor.url]
    mounts: list[Object] = [
        {"name": "enclave", "mountPath": f"{BUNDLE}/enclave/{file}", "subPath": file, "readOnly": True}
        for file in sorted({*values.enclave.files, *values.enclave.binary_files})
    ]
    # What Gramine decrypts for an unmodified program it opens for writing, even to read it.
    as_it_is = {} if values.engine == "tensorflow-serving" else {"readOnly": True}
    mounts += [
        {"name": "models", "mountPath": f"{BUNDLE}/models", **as_it_is},
        {"name": "run", "mountPath": RUN},
    ]
    if values.sgx is not None:
        mounts.append({"name": "aesmd", "mountPath": "/var/run/aesmd"})
    devices = {} if values.sgx is None else _devices(values.sgx, values.sgx.epc_mebibytes)
    return {
        **_container(values, "replica"),
        "args": run,
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (("grpc", ports.grpc), ("rest", ports.rest), ("health", ports.health))
            if port is not None
        ],
        "resources": _resources(values.resources.cpu, values.resources.memory, devices),
        # Ready means attested and loaded; until then no liveness is asked, and nobody sends requests.
        "startupProbe": _probe("/readyz", _PROBE_S, -(-probes.start_seconds // _PROBE_S)),
        "readinessProbe": _probe("/readyz", _PROBE_S, 2),
        "livenessProbe": _probe("/livez", 10, 6),
        # The pod has left the Service's endpoints by then; whoever still sends to it is answered.
        "lifecycle": {"preStop": {"sleep": {"seconds": probes.drain_seconds}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _container(values: Values, name: str) -> Object:
    return {
        "name": name,
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "securityContext": _CONTAINER,
    }


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": _PROBE_S,
        "failureThreshold": failures,
    }


def _resources(cpu: str, memory: str, devices: Object | None = None) -> Object:
    # No limit of CPU: a throttled enclave answers late without anybody gaining from it.
    limits: Object = {"memory": memory, **(devices or {})}
    return {"requests": {"cpu": cpu, **limits}, "limits": limits}


def _devices(sgx: Sgx, mebibytes: int) -> Object:
    match sgx.plugin:
        case "intel":
            return {
                "sgx.intel.com/enclave": 1,
                "sgx.intel.com/epc": f"{mebibytes}Mi",
                "sgx.intel.com/provision": 1,
            }
        case plugin:
            return {_EPC[plugin]: mebibytes}


def _volumes(values: Values, config_map: str) -> list[Object]:
    volumes: list[Object] = [{"name": "enclave", "configMap": {"name": config_map, "defaultMode": 0o444}}]
    claim = values.models.claim
    volumes.append(
        {"name": "models", "emptyDir": {}}
        if claim is None
        else {
            "name": "models",
            "persistentVolumeClaim": {"claimName": claim, "readOnly": values.engine != "tensorflow-serving"},
        }
    )
    volumes.append({"name": "run", "emptyDir": {"sizeLimit": "256Mi"}})
    if values.sgx is not None:
        volumes.append({"name": "aesmd", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})
    return volumes


def vendor(values: Values) -> Object:
    """The Deployment of the simulated vendor: one pod, whose root is gone with it."""
    assert values.vendor is not None
    port = urlsplit(values.vendor.url).port or 80
    pod: Object = {
        "serviceAccountName": values.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, **_pod_security()},
        "containers": [
            {
                **_container(values, "simulated-vendor"),
                "args": _vendor_arguments(port),
                "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
                "resources": _resources("100m", "256Mi"),
                "readinessProbe": {
                    "httpGet": {"path": "/healthz", "port": "http"},
                    "periodSeconds": _PROBE_S,
                    "timeoutSeconds": _PROBE_S,
                },
                "volumeMounts": [{"name": "run", "mountPath": RUN}],
            }
        ],
        "volumes": [{"name": "run", "emptyDir": {"sizeLimit": "16Mi"}}],
    }
    meta = metadata(values, "simulated-vendor", "simulated-vendor")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            # Two at once would be two roots.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector(values, "simulated-vendor")},
            "template": {"metadata": {"labels": {**meta["labels"], PLATFORM: "simulated"}}, "spec": pod},
        },
    }


def _vendor_arguments(port: int) -> Sequence[str]:
    return ["simulated", "serve", "--listen", f"0.0.0.0:{port}", "--home", f"{RUN}/vendor"]
