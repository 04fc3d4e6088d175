"""Configuration files in text format: the first byte says of which kind.

What is accepted is the same after it was written and read again; what is refused says what and where, and of a file
that holds a key nothing of what is in it. Oracle for versions: Python's own numbers.
"""

from __future__ import annotations

import re

from google.protobuf import text_format

from ensconce.errors import InputError
from ensconce.serving.model_config import check_config, labels_of, models_of
from ensconce.serving.version_policy import choose_versions, parse_version
from ensconce.tfserving.messages import (
    POOL,
    BatchingParameters,
    ModelServerConfig,
    MonitoringConfig,
    SSLConfig,
)
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.text import parse_text
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_KINDS = {b"m": ModelServerConfig, b"b": BatchingParameters, b"p": MonitoringConfig, b"s": SSLConfig}
_MARKED = re.compile(rb"K3Y\w*")


def check(data: bytes) -> bool:
    """Read a configuration; see the module."""
    kind = _KINDS.get(data[:1], ModelServerConfig)
    text = data[1:]
    message = attempt(lambda: parse_text(kind, text, "the file"), InputError)
    if isinstance(message, Refused):
        problem = message.error.problem
        holds(problem.startswith(f"Error parsing text-format {kind.DESCRIPTOR.full_name}: "), "another beginning")
        holds(kind is not SSLConfig or not _MARKED.search(str(message.error).encode()), "a key was told")
        return False
    written = text_format.MessageToString(message, descriptor_pool=POOL)
    holds(_again(kind, written) == message, "a round trip changes it")
    if kind is ModelServerConfig:
        _check_models(message)
    return True


def _again(kind: type, written: str) -> object:
    return parse_text(kind, written.encode(), "written")


def _check_models(config: object) -> None:
    before = ModelServerConfig()
    if isinstance(attempt(lambda: check_config(before, config), RequestError), Refused):
        return
    models = models_of(config)
    names = {model.name for model in models}
    holds(len(names) == len(models) and "" not in names, "a model without a name of its own")
    holds(labels_of(config).keys() <= names, "labels of no model")
    for model in models:
        holds(model.base_path.is_absolute(), "a folder that depends on where the server runs")
        chosen = choose_versions(model.name, model.policy, ["1", "2", "03", "x", "-4", model.name])
        holds(all(parse_version(name) == version >= 0 for version, name in chosen.items()), "another version")
        holds(list(chosen) == sorted(chosen, reverse=True), "not latest first")
    version = parse_version(models[0].name) if models else None
    holds(version is None or version == int(models[0].name), "another number")


def seeds() -> dict[str, bytes]:
    """Every field of every kind, in the ways in which they can be written."""
    models = b"""m# models
model_config_list: {
  config: { name: "m", base_path: "/models/m"; model_platform: 'tens' "orflow"
    model_version_policy { specific { versions: [1, 0x2] versions: 03 } }
    version_labels { key: "stable" value: 1 } version_labels: { key: 'next', value: -2 }
    logging_config { log_collector_config { type: "x" filename_prefix: "y" } sampling_config { sampling_rate: 0.1 } } }
  config < name: "caf\\303\\251\\n" base_path: "file:///n" model_type: 1
    model_version_policy { latest { num_versions: 2 } } >
  config { name: "7" base_path: "/7" model_platform: "tensorflow" model_version_policy { all {} } }
}
"""
    any_of = b"[type.googleapis.com/tensorflow.serving.SSLConfig]"
    return {
        "good-models": models,
        "good-custom": b"mcustom_model_config { " + any_of + b' { server_key: "x" } }',
        "good-empty": b"m",
        "good-batching": b"bmax_batch_size { value: 128 } batch_timeout_micros { value: 1000 } "
        b"num_batch_threads { value: 8 } max_enqueued_batches { value: 10 } allowed_batch_sizes: [8, 128]",
        "good-monitoring": b'pprometheus_config { enable: true, path: "/metrics" }',
        "good-ssl": b'sserver_key: "K3Yaaaa" server_cert: \'b\' custom_ca: "" client_verify: true',
        "ssl-cut-off": b'sserver_key: "K3Yaaaa',
        "ssl-without-quotes": b"sserver_key: K3Yaaaa",
        "models-unknown": b"mmodel_config_list { config { nonsense: 1 } }",
        "models-both": b"mmodel_config_list {} custom_model_config {}",
        "models-deep": b"mcustom_model_config {" * 60,
    }


TARGET = Target(
    "text-config",
    check,
    seeds,
    max_size=4096,
    words=(b"config {", b"model_config_list", b"[type.googleapis.com/", b'"\\', b"value:", b"}", b">", b"#"),
)
