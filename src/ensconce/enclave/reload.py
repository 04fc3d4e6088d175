"""``HandleReloadConfigRequest`` inside an enclave, where the measured configuration allows it.

A client may change which versions of the measured models are served, and their labels; no folders, no other models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensconce.enclave.config import MAX_LOADED, ModelConfig, VersionsConfig
from ensconce.servables import MAX_VERSION
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["models_of"]

_TAKEN = frozenset({"name", "base_path", "model_platform", "model_version_policy", "version_labels"})


def models_of(config: Any, measured: Mapping[str, ModelConfig]) -> tuple[list[ModelConfig], dict[str, dict[str, int]]]:
    """The models that a ``ModelServerConfig`` asks for, as far as they are measured, and their labels.

    Args:
        config: the message.
        measured: what may be served at all.

    Raises:
        RequestError: INVALID_ARGUMENT, anything else is in it.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid("Only a ModelConfigList is taken inside an enclave")
    models: dict[str, ModelConfig] = {}
    labels: dict[str, dict[str, int]] = {}
    for entry in config.model_config_list.config:
        name = str(entry.name)
        if name in models:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
        if name not in measured:
            raise RequestError(Code.NOT_FOUND, f"Model {name} is not in the measured configuration of this enclave")
        other = sorted({field.name for field, _ in entry.ListFields()} - _TAKEN)
        if other:
            raise invalid(f"Model {name}: {', '.join(other)} cannot be set inside an enclave")
        if entry.base_path not in ("", f"/models/{name}") or entry.model_platform not in ("", "tensorflow"):
            raise invalid(f"Model {name}: base_path must be /models/{name}, and model_platform tensorflow")
        models[name] = measured[name].model_copy(update={"versions": _policy(name, entry.model_version_policy)})
        labels[name] = dict(entry.version_labels)
    return list(models.values()), {name: each for name, each in labels.items() if each}


def _policy(name: str, policy: Any) -> VersionsConfig | None:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return None
    if choice == "specific":
        versions = list(policy.specific.versions)
        if not 0 < len(versions) <= MAX_LOADED or not all(1 <= version <= MAX_VERSION for version in versions):
            raise invalid(f"Model {name}: 1 to {MAX_LOADED} versions, each from 1 to {MAX_VERSION}")
        return VersionsConfig(specific=versions)
    return VersionsConfig(latest=min(max(policy.latest.num_versions, 1), MAX_LOADED))
