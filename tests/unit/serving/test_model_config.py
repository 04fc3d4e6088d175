from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.model_config import check_config, labels_of, models_of
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.text import parse_text


def read(text: str) -> Any:
    return parse_text(ModelServerConfig, text.encode(), "test")


def models(*texts: str) -> Any:
    return read("model_config_list {" + "".join(f"config {{ {text} }}" for text in texts) + "}")


GOOD = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'
NONE = ModelServerConfig()
CUSTOM = read("custom_model_config { type_url: 'x' }")


def test_what_a_configuration_asks_for() -> None:
    config = models(
        GOOD + ' version_labels { key: "stable" value: 1 } model_version_policy { all {} }',
        'name: "n" base_path: "file:///models/n" model_type: TENSORFLOW',
    )
    check_config(NONE, config)
    one, other = models_of(config)
    assert (one.name, one.base_path) == ("m", Path("/models/m"))
    assert one.policy.WhichOneof("policy_choice") == "all"
    assert (other.name, other.base_path) == ("n", Path("/models/n"))
    assert labels_of(config) == {"m": {"stable": 1}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NONE, NONE),
        (NONE, models(GOOD)),
        (models(GOOD), models(GOOD)),
        (models(GOOD), models()),
        (models(GOOD), models('name: "n" base_path: "/n" model_platform: "tensorflow"')),
        (models(GOOD), models('name: "m" base_path: "/elsewhere" model_type: TENSORFLOW')),
    ],
)
def test_what_may_follow(old: Any, new: Any) -> None:
    check_config(old, new)


TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
)


@pytest.mark.parametrize(
    ("old", "new", "code", "text"),
    [
        (models(GOOD), NONE, Code.FAILED_PRECONDITION, TRANSITION),
        (models(GOOD), CUSTOM, Code.FAILED_PRECONDITION, TRANSITION),
        (NONE, CUSTOM, Code.UNIMPLEMENTED, "ModelServer does not yet support custom model config."),
        (NONE, models(GOOD, GOOD), Code.INVALID_ARGUMENT, "Illegal to list model m multiple times in config list"),
        (
            NONE,
            models('base_path: "/m" model_platform: "tensorflow"'),
            Code.INVALID_ARGUMENT,
            "Expected every model to have a name",
        ),
        (
            NONE,
            models('name: "m" base_path: "models/m" model_platform: "tensorflow"'),
            Code.INVALID_ARGUMENT,
            "Expected model m to have an absolute path or URI; got base_path()=models/m",
        ),
        (
            NONE,
            models('name: "m" model_platform: "tensorflow"'),
            Code.INVALID_ARGUMENT,
            "Expected model m to have an absolute path or URI; got base_path()=",
        ),
        (
            NONE,
            models('name: "m" base_path: "/m\\000" model_platform: "tensorflow"'),
            Code.INVALID_ARGUMENT,
            "Expected model m to have a path without NUL",
        ),
        (
            NONE,
            models('name: "m" base_path: "gs://bucket/m" model_platform: "tensorflow"'),
            Code.UNIMPLEMENTED,
            "File system scheme 'gs' not implemented (file: 'gs://bucket/m')",
        ),
        (
            NONE,
            models('name: "m" base_path: "file://host/m" model_platform: "tensorflow"'),
            Code.UNIMPLEMENTED,
            "File system scheme 'file' not implemented (file: 'file://host/m')",
        ),
        (
            NONE,
            models('name: "m" base_path: "/m"'),
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            NONE,
            models(GOOD + " model_type: TENSORFLOW"),
            Code.INVALID_ARGUMENT,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            NONE,
            models('name: "m" base_path: "/m" model_type: OTHER'),
            Code.INVALID_ARGUMENT,
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            NONE,
            models('name: "m" base_path: "/m" model_platform: "fake"'),
            Code.INVALID_ARGUMENT,
            "Model m requests unsupported platform fake",
        ),
        (
            models(GOOD),
            models('name: "m" base_path: "/m" model_platform: "other"'),
            Code.INVALID_ARGUMENT,
            "Illegal to change a model's platform. For model m platform was tensorflow "
            "and new platform requested is other",
        ),
    ],
)
def test_what_is_refused(old: Any, new: Any, code: Code, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_config(old, new)
    assert (caught.value.code, caught.value.problem) == (code, text)
