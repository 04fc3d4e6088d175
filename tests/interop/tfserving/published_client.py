"""A client as TensorFlow Serving's users write it: tensorflow-serving-api and requests, nothing of Ensconce.

Arguments: gRPC port, REST port, file with the root certificate, file with the held-out digits. It prints JSON.
"""

import json
import sys
from pathlib import Path

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

grpc_port, rest_port, root, held_out = sys.argv[1:]
digits = np.load(held_out)
images, labels = digits["images"].astype(np.float32)[..., None], digits["labels"]

credentials = grpc.ssl_channel_credentials(Path(root).read_bytes())
options = [("grpc.ssl_target_name_override", "models.example")]
channel = grpc.secure_channel(f"127.0.0.1:{grpc_port}", credentials, options=options)
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
model = model_service_pb2_grpc.ModelServiceStub(channel)


def accuracy(classes):
    return float((np.asarray(classes) == labels[: len(classes)]).mean())


def refusal(call, request):
    try:
        call(request, 30)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return None


result = {}

request = predict_pb2.PredictRequest()
request.model_spec.name = "digits"
request.model_spec.signature_name = "serving_default"
request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
response = prediction.Predict(request, 30)
result["grpc"] = accuracy(tf.make_ndarray(response.outputs["classes"]))
result["float_val"] = len(response.outputs["probabilities"].float_val)
result["version"] = response.model_spec.version.value

# One pixel value for a whole image, as make_tensor_proto writes constants.
request.inputs["images"].CopyFrom(tf.make_tensor_proto(3.0, shape=[2, 8, 8, 1]))
same = tf.make_ndarray(prediction.Predict(request, 30).outputs["probabilities"])
result["broadcast"] = bool((same[0] == same[1]).all())

request.inputs["images"].CopyFrom(tf.make_tensor_proto(images.astype(np.float64)))
result["wrong_type"] = refusal(prediction.Predict, request)
request.model_spec.name = "letters"
result["wrong_name"] = refusal(prediction.Predict, request)

request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
request.model_spec.name = "digits"
metadata = prediction.GetModelMetadata(request, 30)
signatures = get_model_metadata_pb2.SignatureDefMap()
metadata.metadata["signature_def"].Unpack(signatures)
signature = signatures.signature_def["serving_default"]
result["inputs"] = {name: tf.as_dtype(info.dtype).name for name, info in signature.inputs.items()}
result["outputs"] = {name: tf.as_dtype(info.dtype).name for name, info in signature.outputs.items()}
result["shape"] = tf.TensorShape(signature.inputs["images"].tensor_shape).as_list()
result["method"] = signature.method_name

request = get_model_status_pb2.GetModelStatusRequest()
request.model_spec.name = "digits"
[status] = model.GetModelStatus(request, 30).model_version_status
result["state"] = get_model_status_pb2.ModelVersionStatus.State.Name(status.state)

url = f"https://127.0.0.1:{rest_port}/v1/models/digits"
answer = requests.post(f"{url}:predict", json={"instances": images[:40].tolist()}, verify=root, timeout=30)
result["rest"] = accuracy([row["classes"] for row in answer.json()["predictions"]])
result["rest_state"] = requests.get(url, verify=root, timeout=30).json()["model_version_status"][0]["state"]
refused = requests.post(f"{url}:predict", data="{", verify=root, timeout=30)
result["rest_refusal"] = [refused.status_code, list(refused.json())]

json.dump(result, sys.stdout)
