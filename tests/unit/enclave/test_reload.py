from typing import Any

import pytest

from ensconce.enclave.config import ModelConfig, VersionsConfig
from ensconce.enclave.reload import models_of
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.text import parse_text

MEASURED = {
    "m": ModelConfig(name="m", precision="bf16", versions=VersionsConfig(latest=3), labels={"stable": 1}),
    "n": ModelConfig(name="n"),
}


def parsed(text: str) -> Any:
    return models_of(parse_text(ModelServerConfig, text.encode(), "x"), MEASURED)


def entry(text: str) -> str:
    return f'model_config_list {{ config {{ name: "m" {text} }} }}'


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", VersionsConfig(latest=1)),
        ("model_version_policy { latest { num_versions: 2 } }", VersionsConfig(latest=2)),
        ("model_version_policy { latest { num_versions: 1000 } }", VersionsConfig(latest=64)),
        ("model_version_policy { all {} }", None),
        ("model_version_policy { specific { versions: [4, 2] } }", VersionsConfig(specific=[4, 2])),
    ],
)
def test_policies_change_and_what_else_was_measured_stays(policy: str, versions: VersionsConfig | None) -> None:
    [model], labels = parsed(entry(policy))
    assert model == ModelConfig(name="m", precision="bf16", versions=versions, labels={"stable": 1})
    assert labels == {}


def test_labels_are_those_of_the_request() -> None:
    _, labels = parsed(
        entry('base_path: "/models/m" model_platform: "tensorflow" version_labels { key: "new" value: 2 }')
    )
    assert labels == {"m": {"new": 2}}


def test_a_model_may_be_left_out() -> None:
    models, _ = parsed('model_config_list { config { name: "n" } }')
    assert [model.name for model in models] == ["n"]
    assert parsed("model_config_list {}") == ([], {})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.INVALID_ARGUMENT),
        ("custom_model_config {}", Code.INVALID_ARGUMENT),
        ('model_config_list { config { name: "other" } }', Code.NOT_FOUND),
        ('model_config_list { config { name: "m" } config { name: "m" } }', Code.INVALID_ARGUMENT),
        (entry('base_path: "/etc"'), Code.INVALID_ARGUMENT),
        (entry('model_platform: "other"'), Code.INVALID_ARGUMENT),
        (entry("model_type: TENSORFLOW"), Code.INVALID_ARGUMENT),
        (entry("logging_config { sampling_config { sampling_rate: 1 } }"), Code.INVALID_ARGUMENT),
        (entry("model_version_policy { specific {} }"), Code.INVALID_ARGUMENT),
        (entry("model_version_policy { specific { versions: 0 } }"), Code.INVALID_ARGUMENT),
        (entry("model_version_policy { specific { versions: 4294967296 } }"), Code.INVALID_ARGUMENT),
    ],
)
def test_anything_else_is_refused(text: str, code: Code) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(text)
    assert caught.value.code is code
