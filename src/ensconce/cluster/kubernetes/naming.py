"""Names and labels of the objects: the recommended ones, and one that says which platform protects the pods."""

from __future__ import annotations

from typing import Any

from ensconce import __version__
from ensconce.cluster.kubernetes.values import Values

__all__ = ["PLATFORM", "labels", "metadata", "replica_labels", "selector"]

PLATFORM = "ensconce/platform"


def selector(values: Values, component: str) -> dict[str, str]:
    """What never changes about the pods of a component; a Deployment's selector cannot be changed either."""
    return {
        "app.kubernetes.io/name": "ensconce",
        "app.kubernetes.io/instance": values.name,
        "app.kubernetes.io/component": component,
    }


def replica_labels(values: Values) -> dict[str, str]:
    """The selector of the replicas' pods."""
    return selector(values, "replica")


def labels(values: Values, component: str) -> dict[str, str]:
    """All labels of an object."""
    return {
        **selector(values, component),
        "app.kubernetes.io/version": __version__,
        "app.kubernetes.io/part-of": "ensconce",
        PLATFORM: values.platform,
    }


def metadata(values: Values, suffix: str = "", component: str = "replica") -> dict[str, Any]:
    """Name, namespace and labels of an object."""
    name = f"{values.name}-{suffix}" if suffix else values.name
    return {"name": name, "namespace": values.namespace, "labels": labels(values, component)}
