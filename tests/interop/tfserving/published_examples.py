"""Examples as TensorFlow Serving's users send them: tensorflow-serving-api and requests, nothing of Ensconce.

Arguments: gRPC port, REST port, file with the root certificate. It prints JSON.
"""

import json
import sys
from pathlib import Path

import grpc
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

grpc_port, rest_port, root = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(Path(root).read_bytes())
options = [("grpc.ssl_target_name_override", "models.example")]
channel = grpc.secure_channel(f"127.0.0.1:{grpc_port}", credentials, options=options)
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)


def example(*values):
    features = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=values))} if values else {}
    return tf.train.Example(features=tf.train.Features(feature=features))


def refusal(call, request):
    try:
        call(request, 30)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return None


result = {}

request = regression_pb2.RegressionRequest()
request.model_spec.name = "line"
request.input.example_list.examples.extend([example(2.0), example(4.0), example()])
response = prediction.Regress(request, 30)
result["regress"] = [each.value for each in response.result.regressions]
result["spec"] = [response.model_spec.name, response.model_spec.version.value, response.model_spec.signature_name]
request.input.example_list_with_context.context.CopyFrom(example(6.0))
request.input.example_list_with_context.examples.extend([example(), example(2.0)])
result["context"] = [each.value for each in prediction.Regress(request, 30).result.regressions]
request.input.example_list.examples.append(example(1.0, 2.0))
result["wrong_number"] = refusal(prediction.Regress, request)
request.input.Clear()
result["nothing"] = refusal(prediction.Regress, request)

request = classification_pb2.ClassificationRequest()
request.model_spec.name = "line"
request.model_spec.signature_name = "classify"
request.input.example_list.examples.extend([example(2.0), example(4.0)])
response = prediction.Classify(request, 30)
result["classify"] = [[[each.label, each.score] for each in row.classes] for row in response.result.classifications]
request.model_spec.signature_name = "none"
result["no_signature"] = refusal(prediction.Classify, request)

request = inference_pb2.MultiInferenceRequest()
for name, method in (("classify", "classify"), ("", "regress")):
    task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
    task.model_spec.name = "line"
    task.model_spec.signature_name = name
request.input.example_list.examples.append(example(2.0))
first, second = prediction.MultiInference(request, 30).results
result["multi"] = [
    [[each.label, each.score] for each in first.classification_result.classifications[0].classes],
    [each.value for each in second.regression_result.regressions],
    [first.model_spec.signature_name, second.model_spec.signature_name],
]
request.tasks[1].model_spec.name = "digits"
result["two_models"] = refusal(prediction.MultiInference, request)

request = predict_pb2.PredictRequest()
request.model_spec.name = "line"
request.inputs["inputs"].CopyFrom(tf.make_tensor_proto([example(2.0).SerializeToString()]))
result["predict"] = tf.make_ndarray(prediction.Predict(request, 30).outputs["outputs"]).tolist()

url = f"https://127.0.0.1:{rest_port}/v1/models/line"
body = {"context": {"x": 6.0}, "examples": [{"x": 2.0}, {}]}
result["rest_regress"] = requests.post(f"{url}:regress", json=body, verify=root, timeout=30).json()
body["signature_name"] = "classify"
result["rest_classify"] = requests.post(f"{url}:classify", json=body, verify=root, timeout=30).json()
refused = requests.post(f"{url}:regress", json={"examples": [{"x": 2}]}, verify=root, timeout=30)
result["rest_refusal"] = [refused.status_code, refused.json()["error"]]

json.dump(result, sys.stdout)
