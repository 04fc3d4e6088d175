"""TensorFlow Serving's published stubs, unmodified, on an insecure channel to the proxy: where they are installed."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")
apis = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc", reason="no tensorflow-serving-api")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")


def test_they_work_through_the_proxy(world, proxy, grpc_replica, wait_for) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    started = proxy(*(each.target for each in replicas))
    wait_for(lambda: len(started.replicas) == 2, "both replicas")
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ones((1, 224, 224, 3), np.float32)))
    with grpc.insecure_channel(started.at["grpc"]) as channel:
        stub = apis.PredictionServiceStub(channel)
        answers = [stub.Predict(request, 30), stub.Predict.future(request, 30).result()]
    assert all((tf.make_ndarray(answer.outputs["images"]) == 2).all() for answer in answers)
    assert [replica.served for replica in replicas] == [1, 1]
