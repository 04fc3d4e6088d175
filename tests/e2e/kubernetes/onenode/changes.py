"""What whoever owns the API server can change in our objects: configuration and arguments."""

from __future__ import annotations

import json
from typing import Any

from .host import NAME

__all__ = ["configuration", "other_machine"]

Objects = list[dict[str, Any]]


def configuration(objects: Objects) -> Objects:
    """Another configuration of the enclave, which lets clients change what is served, in the place of the owner's."""
    files, deployment = _config_map(objects), _find(objects, "Deployment", NAME)
    config = json.loads(files["data"]["server.json"])
    config["serving"]["allow_reload"] = True
    files["data"]["server.json"] = json.dumps(config)
    # Its name is of its content; another object, because the owner's cannot be changed.
    files["metadata"]["name"] += "-changed"
    for volume in deployment["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = files["metadata"]["name"]
    return [files, deployment]


def other_machine(objects: Objects) -> Objects:
    """The replica on a machine whose keys the host has made: no vendor among the arguments."""
    deployment = _find(objects, "Deployment", NAME)
    arguments = _replica(deployment)["args"]
    at = arguments.index("--vendor")
    del arguments[at : at + 2]
    return [deployment]


def _config_map(objects: Objects) -> dict[str, Any]:
    (found,) = (each for each in objects if each["kind"] == "ConfigMap")
    return found


def _find(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


def _replica(deployment: dict[str, Any]) -> dict[str, Any]:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]
