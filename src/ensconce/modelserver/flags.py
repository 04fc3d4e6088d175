"""The flags of ``tensorflow_model_server``, and how a command line of them is read.

Names, types and defaults: tensorflow_serving/model_servers/main.cc and server.h. Reading:
tensorflow/core/util/command_line_flags.cc, with one difference: there an argument that is no flag is told and ignored.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ensconce.errors import InputError

__all__ = ["FLAGS", "Flag", "Value", "ignored", "parse_flags", "usage"]

Value = bool | int | float | str

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_INT64: Final = 2**63
_WIDTH: Final = 100


@dataclass(frozen=True)
class Flag:
    """A flag. ``ignored`` says why it does nothing here; its value is checked all the same."""

    name: str
    default: Value
    help: str
    ignored: str = ""


_CORES: Final = os.cpu_count() or 1
_NO_GPU: Final = "there are no accelerators"
_ONE_LOOP: Final = "one thread serves all connections"

FLAGS: Final = (
    Flag("port", 8500, "TCP port of the gRPC API; 0 for none."),
    Flag("grpc_socket_path", "", "UNIX socket of the gRPC API, beside or instead of the port."),
    Flag("rest_api_port", 0, "TCP port of the REST API; 0 for none. Not the port of the gRPC API."),
    Flag("rest_api_num_threads", 4 * _CORES, "Threads of the REST API.", _ONE_LOOP),
    Flag("rest_api_timeout_in_ms", 30000, "Milliseconds that a REST request may take."),
    Flag("rest_api_enable_cors_support", False, "Allow browsers of any origin to ask (CORS headers)."),
    Flag("enable_batching", False, "Batch as TensorFlow Serving does. Without: merge what waits, delay nothing."),
    Flag(
        "allow_version_labels_for_unavailable_models",
        False,
        "Let a new label mean a version that is not available yet.",
    ),
    Flag("batching_parameters_file", "", "BatchingParameters in text format; needs --enable_batching."),
    Flag(
        "enable_per_model_batching_parameters",
        False,
        "Take batching parameters from batching_params.pbtxt in each version's folder.",
        "all models are batched by the same parameters",
    ),
    Flag("model_config_file", "", "ModelServerConfig in text format: several models, version policies, labels."),
    Flag("model_config_file_poll_wait_seconds", 0, "Seconds between two looks at that file; 0 looks once."),
    Flag("model_name", "default", "Name of the model; not with --model_config_file."),
    Flag("model_base_path", "", "Folder of the model's versions; not with --model_config_file."),
    Flag("num_load_threads", 0, "Threads that load versions; 0 loads one after the other."),
    Flag("num_unload_threads", 0, "Threads that unload versions; 0 unloads one after the other."),
    Flag("max_num_load_retries", 5, "How often a load that failed is tried again."),
    Flag("load_retry_interval_micros", 60_000_000, "Microseconds between two tries; negative for none."),
    Flag("file_system_poll_wait_seconds", 1, "Seconds between two looks for versions; 0 looks once, negative never."),
    Flag("flush_filesystem_caches", True, "Drop what was read of models from caches.", "nothing is kept to be dropped"),
    Flag("tensorflow_session_parallelism", 0, "Threads of a TensorFlow session, within and between operations."),
    Flag(
        "tensorflow_session_config_file",
        "",
        "ConfigProto of TensorFlow sessions in text format.",
        "name threads by --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism",
    ),
    Flag("tensorflow_intra_op_parallelism", 0, "Threads within an operation of TensorFlow; 0 is TensorFlow's choice."),
    Flag("tensorflow_inter_op_parallelism", 0, "Operations of TensorFlow at once; 0 is TensorFlow's choice."),
    Flag("use_alts_credentials", False, "Google's ALTS instead of TLS; refused: it exists in Google's cloud alone."),
    Flag("ssl_config_file", "", "SSLConfig in text format: key and certificates of the gRPC API."),
    Flag("platform_config_file", "", "PlatformConfigMap in text format; refused: folders say what they hold."),
    Flag("per_process_gpu_memory_fraction", 0.0, "Fraction of a GPU's memory to take.", _NO_GPU),
    Flag("saved_model_tags", "serve", "Tags of the graph to load from SavedModels, separated by commas."),
    Flag("grpc_channel_arguments", "", "gRPC's channel arguments, separated by commas, as KEY=VALUE."),
    Flag("grpc_max_threads", 4 * _CORES, "Threads of the gRPC API.", _ONE_LOOP),
    Flag("enable_model_warmup", True, "Replay a version's recorded requests before it answers others."),
    Flag("num_request_iterations_for_warmup", 0, "How often each of them is replayed, if more than 0."),
    Flag("version", False, "Print the version, and end."),
    Flag("monitoring_config_file", "", "MonitoringConfig in text format: whether and where metrics are served."),
    Flag(
        "remove_unused_fields_from_bundle_metagraph",
        True,
        "Drop what is not needed of SavedModels.",
        "it is always dropped",
    ),
    Flag("prefer_tflite_model", False, "Serve model.tflite where a version's folder has one."),
    Flag("num_tflite_pools", _CORES, "TFLite inferences at once."),
    Flag("num_tflite_interpreters_per_pool", 1, "TFLite interpreters for each.", "there is one for each"),
    Flag("enable_signature_method_name_check", False, "Let Classify and Regress use signatures of their method alone."),
    Flag("xla_cpu_compilation_enabled", False, "Compile graphs by XLA for CPUs.", "graphs are computed as they are"),
    Flag("xla_gpu_compilation_enabled", False, "Compile graphs by XLA for GPUs.", _NO_GPU),
    Flag("enable_profiler", True, "Serve TensorFlow's profiler for models that TensorFlow computes."),
    Flag("thread_pool_factory_config_file", "", "Thread pools for TensorFlow.", "TensorFlow has its own"),
    Flag("mixed_precision", "", "'bfloat16' computes in it where that loses little."),
    Flag("skip_initialize_tpu", False, "Do not initialise TPUs.", _NO_GPU),
    Flag("enable_grpc_healthcheck_service", False, "Serve gRPC's health service.", "it is always served"),
    Flag("enable_serialization_as_tensor_content", False, "Answer with tensor_content instead of typed fields."),
)


def parse_flags(arguments: Sequence[str]) -> dict[str, Value]:
    """The value of every flag: ``--NAME=VALUE``, or ``--NAME`` for true. The last one of a name counts.

    Args:
        arguments: the command line without the program's name.

    Raises:
        InputError: ``flag.unknown``, an argument is no flag; ``flag.value``, a value is missing or of another type.
    """
    by_name = {flag.name: flag for flag in FLAGS}
    values = {flag.name: flag.default for flag in FLAGS}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        flag = by_name.get(name) if argument.startswith("--") else None
        if flag is None:
            raise InputError(
                "flag.unknown",
                f"unknown argument: {argument}",
                rule="flags of tensorflow_model_server, as --NAME=VALUE",
                remedy="ensconce-model-server --help lists them",
            )
        values[name] = _value(flag, text if equals else None)
    return values


def _value(flag: Flag, text: str | None) -> Value:
    kind = type(flag.default)
    if kind is bool:
        if text is None or text.lower() in ("true", "1"):
            return True
        if text.lower() in ("false", "0"):
            return False
        raise _wrong(flag, text, "true or false")
    if text is None:
        raise _wrong(flag, "nothing", f"--{flag.name}=VALUE")
    if kind is int:
        if not _INTEGER.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
            raise _wrong(flag, text, "an integer of 64 bits")
        return int(text)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise _wrong(flag, text, "a number") from None
    return text


def _wrong(flag: Flag, found: str, rule: str) -> InputError:
    return InputError("flag.value", f"--{flag.name} has a wrong value", found=found[:100], rule=rule)


def usage(program: str) -> str:
    """The text of ``--help``."""
    lines = [
        f"usage: {program} --model_base_path=FOLDER [--port=8500] [--rest_api_port=8501] ...",
        "",
        "Serves TensorFlow Serving's API for plain folders of models, outside any enclave.",
        "",
        "Examples:",
        f"  {program} --model_name=resnet --model_base_path=/models/resnet --rest_api_port=8501",
        f"  {program} --model_config_file=models.config --model_config_file_poll_wait_seconds=60",
        "",
        "Flags:",
    ]
    for flag in FLAGS:
        lines.append(f"  --{flag.name}={_told(flag.default)}")
        text = f"{flag.help} Ignored: {flag.ignored}." if flag.ignored else flag.help
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def _told(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def ignored(values: Mapping[str, Value]) -> list[str]:
    """A sentence for each flag that was given another value than its default, and does nothing here."""
    return [
        f"--{flag.name}={_told(values[flag.name])} is ignored: {flag.ignored}"
        for flag in FLAGS
        if flag.ignored and values[flag.name] != flag.default
    ]
