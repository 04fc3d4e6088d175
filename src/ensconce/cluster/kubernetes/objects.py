"""From values to Kubernetes objects: plain mappings, the same from the same values, in the order to apply them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import yaml

from ensconce.cluster.kubernetes import network, pods
from ensconce.cluster.kubernetes.naming import metadata, replica_labels
from ensconce.cluster.kubernetes.values import Values

__all__ = ["render", "to_yaml"]

Object = dict[str, Any]


def render(values: Values) -> list[Object]:
    """Every object of a deployment."""
    objects = [_namespace(values)] if values.create_namespace else []
    objects += [_service_account(values), _config_map(values)]
    if values.vendor is not None and values.vendor.serve:
        objects += [pods.vendor(values), network.vendor_service(values), network.vendor_policy(values)]
    objects += [
        pods.replicas(values, config_map_name(values)),
        network.service(values),
        _disruption_budget(values),
        network.policy(values),
    ]
    if values.autoscaling is not None:
        objects.append(_autoscaler(values))
    return objects + network.routes(values)


def to_yaml(objects: Sequence[Object]) -> str:
    """All objects in one stream of YAML documents; text of several lines as it is."""
    return "".join(
        "---\n" + yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True) for each in objects
    )


def config_map_name(values: Values) -> str:
    """Of the enclave's files: another content is another object, which old and new replicas each have their own of."""
    text = "".join(f"{name}\n{content}\n" for part in _contents(values) for name, content in sorted(part.items()))
    return f"{values.name}-enclave-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _contents(values: Values) -> tuple[dict[str, str], dict[str, str]]:
    key = values.models.owner_key
    return {**values.enclave.files, **({} if key is None else {"owner.pub": key})}, values.enclave.binary_files


def _namespace(values: Values) -> Object:
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": values.namespace, "labels": level}}


def _service_account(values: Values) -> Object:
    meta = metadata(values)
    if values.service_account_annotations:
        meta["annotations"] = dict(sorted(values.service_account_annotations.items()))
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "automountServiceAccountToken": False}


def _config_map(values: Values) -> Object:
    text, binary = _contents(values)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(values) | {"name": config_map_name(values)},
        "immutable": True,
        "data": text,
        "binaryData": dict(binary),
    }


def _disruption_budget(values: Values) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(values),
        "spec": {
            # Rounded up: one of few.
            "maxUnavailable": values.spare or "10%",
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": replica_labels(values)},
        },
    }


def _autoscaler(values: Values) -> Object:
    assert values.autoscaling is not None
    scaling = values.autoscaling
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(values),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": values.name},
            "minReplicas": values.replicas + values.spare,
            "maxReplicas": scaling.max_replicas,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": scaling.metric},
                        "target": {"type": "AverageValue", "averageValue": f"{scaling.queue_milliseconds}m"},
                    },
                }
            ],
            "behavior": {
                # Up at once and by as much again: an enclave that starts now serves in many seconds only.
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [
                        {"type": "Percent", "value": 100, "periodSeconds": 30},
                        {"type": "Pods", "value": 2, "periodSeconds": 30},
                    ],
                },
                # Down slowly: what is stopped too early is missing for as long as a start takes.
                "scaleDown": {
                    "stabilizationWindowSeconds": 600,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
                },
            },
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines literally, and no references between parts that happen to be the same."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
