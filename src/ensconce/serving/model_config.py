"""Which ``ModelServerConfig`` may follow another, and what it asks for. Texts: model_servers/server_core.cc."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from ensconce.serving.source import WatchedModel
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["PLATFORMS", "check_config", "labels_of", "models_of"]

PLATFORMS: Final = frozenset({"tensorflow"})
"""Values of ``model_platform``, as the original's without a platform configuration: folders say what they hold."""

_URI: Final = re.compile(r"([a-zA-Z][0-9a-zA-Z.]*)://([^/]*)(.*)", re.DOTALL)


def check_config(old: Any, new: Any, platforms: Collection[str] = PLATFORMS) -> None:
    """Refuse a configuration that is wrong in itself, or cannot follow the one in force.

    Rules: ``ReloadConfig``, ``ValidateModelConfigList``, ``ValidateNoModelsChangePlatforms``, ``GetPlatform``.

    Args:
        old: ``ModelServerConfig``; empty before the first.
        new: ``ModelServerConfig``.
        platforms: values of ``model_platform`` that are known.

    Raises:
        RequestError: FAILED_PRECONDITION, it cannot follow; INVALID_ARGUMENT, a model is listed twice, has no absolute
            path, or no known platform; UNIMPLEMENTED, a custom configuration or a remote path.
    """
    before, after = old.WhichOneof("config"), new.WhichOneof("config")
    if before is not None and old != new and not before == after == "model_config_list":
        raise RequestError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. "
            "It is only legal to transition from one ModelConfigList to another.",
        )
    if after == "custom_model_config":
        raise RequestError(Code.UNIMPLEMENTED, "ModelServer does not yet support custom model config.")
    names: set[str] = set()
    for model in new.model_config_list.config:
        if not model.name:
            raise invalid("Expected every model to have a name")
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        _folder(model)
    before_platforms = {model.name: _platform(model) for model in old.model_config_list.config}
    for model in new.model_config_list.config:
        platform = _platform(model)
        if before_platforms.get(model.name, platform) != platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was "
                f"{before_platforms[model.name]} and new platform requested is {platform}"
            )
        if platform not in platforms:
            raise invalid(f"Model {model.name} requests unsupported platform {platform}")


def models_of(config: Any) -> list[WatchedModel]:
    """The models of a configuration that was checked."""
    models = config.model_config_list.config
    return [WatchedModel(model.name, _folder(model), model.model_version_policy) for model in models]


def labels_of(config: Any) -> dict[str, dict[str, int]]:
    """The labels of each model that has some."""
    models = config.model_config_list.config
    return {model.name: dict(model.version_labels) for model in models if model.version_labels}


def _folder(model: Any) -> Path:
    if "\0" in model.base_path:
        # No file system has such a name, and every look into the models' folders would end at it.
        raise invalid(f"Expected model {model.name} to have a path without NUL")
    match = _URI.fullmatch(model.base_path)
    if match is None:
        if not model.base_path.startswith("/"):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        return Path(model.base_path)
    if match[1] != "file" or match[2] or not match[3]:
        text = f"File system scheme '{match[1]}' not implemented (file: '{model.base_path}')"
        raise RequestError(Code.UNIMPLEMENTED, text)
    return Path(match[3])


def _platform(model: Any) -> str:
    if not model.model_type:
        if not model.model_platform:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        return str(model.model_platform)
    if model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    if model.model_type != 1:
        raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    return "tensorflow"
