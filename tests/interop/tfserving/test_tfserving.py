"""TensorFlow Serving's published client, unmodified and in a process of its own, against our server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ensconce
from ensconce.tfserving.messages import POOL

ROOT = Path(__file__).parents[3]
Run = Callable[..., Any]
FILES = (
    "tensorflow/core/framework/types.proto",
    "tensorflow/core/framework/tensor_shape.proto",
    "tensorflow/core/framework/tensor.proto",
    "tensorflow/core/protobuf/meta_graph.proto",
    "tensorflow/core/protobuf/error_codes.proto",
    "tensorflow_serving/apis/model.proto",
    "tensorflow_serving/apis/predict.proto",
    "tensorflow_serving/apis/get_model_metadata.proto",
    "tensorflow_serving/apis/get_model_status.proto",
    "tensorflow_serving/apis/status.proto",
    "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving/apis/model_service.proto",
    "tensorflow/core/example/feature.proto",
    "tensorflow/core/example/example.proto",
    "tensorflow_serving/apis/input.proto",
    "tensorflow_serving/apis/classification.proto",
    "tensorflow_serving/apis/regression.proto",
    "tensorflow_serving/apis/inference.proto",
    "tensorflow_serving/apis/model_management.proto",
    "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving/config/file_system_storage_path_source.proto",
    "tensorflow_serving/config/logging_config.proto",
    "tensorflow_serving/config/model_server_config.proto",
)

# In the repository, but not in the published package.
UNPUBLISHED = (
    "tensorflow/core/profiler/profiler_service.proto",
    "tensorflow_serving/config/monitoring_config.proto",
    "tensorflow_serving/config/ssl_config.proto",
    "tensorflow_serving/servables/tensorflow/session_bundle_config.proto",
)
# Compared with gRPC's own packages by tests/unit/serving/grpc.
GRPC = (
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
)
# The same bytes as some of the others; tests/unit/serving reads what was written as those.
UNREAD = ("ensconce/examples.proto",)
# Our own service, and KServe's open inference protocol, which the load generator speaks.
OTHERS = ("ensconce/attestation.proto", "inference/grpc_predict_v2.proto")


def test_the_published_client_works_unmodified(run: Run, server: tuple[int, int, Path]) -> None:
    grpc_port, rest_port, root = server
    held_out = ROOT / "examples" / "digits" / "heldout.npz"
    result = run("published_client.py", str(grpc_port), str(rest_port), str(root), str(held_out))
    assert result.pop("grpc") >= 0.98
    assert result.pop("rest") >= 0.95
    assert result == {
        "float_val": 3600,
        "version": 1,
        "broadcast": True,
        "wrong_type": ["INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"],
        "wrong_name": ["NOT_FOUND", "Servable not found for request: Latest(letters)"],
        "inputs": {"images": "float32"},
        "outputs": {"classes": "int64", "probabilities": "float32"},
        "shape": [None, 8, 8, 1],
        "method": "tensorflow/serving/predict",
        "state": "AVAILABLE",
        "rest_state": "AVAILABLE",
        "rest_refusal": [400, ["error"]],
    }


def test_the_published_client_s_examples_are_answered(run: Run, server: tuple[int, int, Path]) -> None:
    grpc_port, rest_port, root = server
    two = [["low", 2.0], ["high", 3.0]]
    assert run("published_examples.py", str(grpc_port), str(rest_port), str(root)) == {
        "regress": [3, 4, 6],
        "spec": ["line", 4, "serving_default"],
        "context": [5, 3],
        "wrong_number": [
            "INVALID_ARGUMENT",
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  "
            "Values size: 2 but output shape: [1]",
        ],
        "nothing": ["INVALID_ARGUMENT", "Input is empty."],
        "classify": [two, [["low", 4], ["high", 4]]],
        "no_signature": ["INVALID_ARGUMENT", "No signature was found with the name: none"],
        "multi": [two, [3], ["classify", "serving_default"]],
        "two_models": [
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ],
        "predict": [[3]],
        "rest_regress": {"results": [3, 5]},
        "rest_classify": {"results": [two, [["low", 6], ["high", 5]]]},
        "rest_refusal": [
            400,
            "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64 but expected type: float",
        ],
    }


def test_every_number_is_the_originals(run: Run) -> None:
    published = run("published_descriptors.py")

    def check_message(message: Any) -> None:
        theirs = published[message.full_name]
        for field in message.fields:
            ours = [field.number, field.type, field.is_repeated, field.json_name]
            assert ours == theirs[field.name], f"{message.full_name}.{field.name}"
        for nested in message.nested_types:
            check_message(nested)
        for enum in message.enum_types:
            check_enum(enum)

    def check_enum(enum: Any) -> None:
        for value in enum.values:
            assert published[enum.full_name][value.name] == value.number, f"{enum.full_name}.{value.name}"

    for path in FILES:
        file = POOL.FindFileByName(path)
        for message in file.message_types_by_name.values():
            check_message(message)
        for enum in file.enum_types_by_name.values():
            check_enum(enum)
        for service in file.services_by_name.values():
            for method in service.methods:
                types = [method.input_type.full_name, method.output_type.full_name]
                assert types == published[service.full_name][method.name]


def test_both_live_in_one_process(run: Run, tmp_path: Path) -> None:
    # The package alone: whatever else our environment holds stays out of theirs.
    package = Path(ensconce.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package / "tfserving", tmp_path / "ensconce" / "tfserving", ignore=ignore)
    for module in ("__init__.py", "errors.py"):
        shutil.copy(package / module, tmp_path / "ensconce" / module)
    assert len(run("coexistence.py", str(tmp_path))) == 8


def test_all_files_are_compared() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is a development dependency")
    ours = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    assert ours == sorted(FILES + UNPUBLISHED + GRPC + UNREAD + OTHERS)
