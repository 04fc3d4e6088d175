from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import InputError
from ensconce.tfserving.messages import BatchingParameters, ModelServerConfig, MonitoringConfig, SSLConfig
from ensconce.tfserving.text import MAX_TEXT, parse_text, read_text_file

MODELS = b"""
# the models
model_config_list: {
  config: {
    name: "half_plus_two",  # a comma is taken
    base_path: '/models/half'
               '_plus_two';
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: [0x2, 03] } }
    version_labels { key: "stable" value: 2 }
    version_labels: { key: 'canary', value: 3 }
  }
  config < name: "caf\\303\\251" >
}
"""


def test_models() -> None:
    models = parse_text(ModelServerConfig, MODELS, "models.config").model_config_list.config
    assert (models[0].name, models[0].base_path) == ("half_plus_two", "/models/half_plus_two")
    assert list(models[0].model_version_policy.specific.versions) == [1, 2, 3]
    assert dict(models[0].version_labels) == {"stable": 2, "canary": 3}
    assert models[1].name == "café"


def test_the_other_configurations(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("max_batch_size { value: 128 } allowed_batch_sizes: [8, 128] thread_pool_name { value: 'x' }")
    batching = read_text_file(BatchingParameters, path)
    assert (batching.max_batch_size.value, list(batching.allowed_batch_sizes)) == (128, [8, 128])
    assert not batching.HasField("batch_timeout_micros")
    path.write_text('prometheus_config { enable: true, path: "/metrics" }')
    assert read_text_file(MonitoringConfig, path).prometheus_config.path == "/metrics"
    path.write_text('server_key: "-----BEGIN\\nkey" server_cert: "cert" client_verify: false')
    assert read_text_file(SSLConfig, path).server_key == "-----BEGIN\nkey"
    path.write_text("")
    assert read_text_file(ModelServerConfig, path) == ModelServerConfig()


def nested(depth: int) -> bytes:
    inside = b""
    for _ in range(depth):
        any_of = b"[type.googleapis.com/tensorflow.serving.ModelServerConfig]"
        inside = b"custom_model_config { " + any_of + b" { " + inside + b" } }"
    return inside


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (ModelServerConfig, b"improper model config", "tensorflow.serving.ModelServerConfig: 1:1: "),
        (ModelServerConfig, b'model_config_list { config { name: "' + b'\\"' * 150_000, "ModelServerConfig: 1:36: "),
        (ModelServerConfig, b"model_config_list {\n  config { bogus: 1 } }", "ModelServerConfig: 2:12: "),
        (ModelServerConfig, b'model_config_list { config { name: "a" name: "b" } }', "ModelServerConfig: 1:"),
        (ModelServerConfig, b"model_config_list { config {", "ModelServerConfig: 1:"),
        (ModelServerConfig, b"model_config_list { config { name: 5 } }", "ModelServerConfig: 1:"),
        (ModelServerConfig, b'model_config_list { config { version_labels { value: "x" } } }', "ModelServerConfig: 1:"),
        (
            ModelServerConfig,
            b"model_config_list { config { version_labels { value: 1e99 } } }",
            "ModelServerConfig: 1:",
        ),
        (
            ModelServerConfig,
            b"model_config_list {} custom_model_config {}",
            "tensorflow.serving.ModelServerConfig: 1:22: ",
        ),
        (ModelServerConfig, b'model_config_list { config { name: "\xff" } }', "byte 36 is no UTF-8"),
        (ModelServerConfig, b'model_config_list { config { name: "\\377" } }', "ModelServerConfig: "),
        (ModelServerConfig, b"[" * 1000, "nested more than"),
        (ModelServerConfig, nested(40), "nested more than"),
        (ModelServerConfig, b"custom_model_config { [x.y/z] {} }", "ModelServerConfig: "),
        (ModelServerConfig, b"#" * (MAX_TEXT + 1), f"more than {MAX_TEXT} bytes"),
        (MonitoringConfig, b"prometheus_config { enable: maybe }", "tensorflow.serving.MonitoringConfig: 1:"),
        (BatchingParameters, b"max_batch_size: 128", "tensorflow.serving.BatchingParameters: 1:"),
        (BatchingParameters, b"max_batch_size { value: 9223372036854775808 }", "BatchingParameters: 1:"),
        (SSLConfig, b"x: 1", "tensorflow.serving.SSLConfig: 1:1: not understood"),
    ],
)
def test_what_is_refused(kind: Any, text: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(kind, text, "the.file")
    assert caught.value.check == "config.text"
    assert caught.value.problem.startswith("Error parsing text-format tensorflow.serving.")
    assert problem in caught.value.problem
    assert caught.value.found == "the.file"
    assert str(caught.value).isprintable()
    assert len(caught.value.problem) < 400


@pytest.mark.parametrize(
    "bad", [b'server_key: "secret', b'server_key: secret "', b'secret: "x"', b"server_key: 'secret\n'"]
)
def test_a_key_is_never_told(bad: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(SSLConfig, bad, "ssl.cfg")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_text_file(ModelServerConfig, tmp_path / "missing")
    assert caught.value.check == "file.read"


@given(st.one_of(st.binary(max_size=200), st.text("{}<>[]:\"'#\\ \nab1.-/,;", max_size=100).map(str.encode)))
def test_anything_is_read_or_refused(text: bytes) -> None:
    try:
        message = parse_text(ModelServerConfig, text, "x")
    except InputError:
        return
    assert parse_text(ModelServerConfig, str(message).encode(), "x") == message
