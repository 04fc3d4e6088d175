"""Print, as JSON, the fields, enum values and methods that TensorFlow's and TensorFlow Serving's own modules define."""

import json
import sys

from google.protobuf import descriptor_pool
from tensorflow.core.example import example_pb2  # noqa: F401
from tensorflow.core.framework import tensor_pb2  # noqa: F401
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2  # noqa: F401
from tensorflow_serving.apis import (  # noqa: F401
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2,
    regression_pb2,
)
from tensorflow_serving.config import log_collector_config_pb2, model_server_config_pb2  # noqa: F401

pool = descriptor_pool.Default()
result = {}


def add(message):
    result[message.full_name] = {
        field.name: [field.number, field.type, field.is_repeated, field.json_name] for field in message.fields
    }
    for nested in message.nested_types:
        add(nested)
    for enum in message.enum_types:
        result[enum.full_name] = {value.name: value.number for value in enum.values}


for path in (
    "tensorflow/core/framework/types.proto",
    "tensorflow/core/framework/tensor_shape.proto",
    "tensorflow/core/framework/tensor.proto",
    "tensorflow/core/protobuf/meta_graph.proto",
    "tsl/protobuf/error_codes.proto",
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
    "tensorflow_serving/config/log_collector_config.proto",
):
    try:
        file = pool.FindFileByName(path)
    except KeyError:
        file = pool.FindFileByName(path.replace("tsl/", "xla/tsl/"))
    for message in file.message_types_by_name.values():
        add(message)
    for enum in file.enum_types_by_name.values():
        result[enum.full_name] = {value.name: value.number for value in enum.values}
    for service in file.services_by_name.values():
        result[service.full_name] = {
            method.name: [method.input_type.full_name, method.output_type.full_name] for method in service.methods
        }

json.dump(result, sys.stdout)
