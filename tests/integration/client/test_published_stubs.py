"""TensorFlow Serving's published stubs, unmodified, on both channels: in an environment that has them."""

from __future__ import annotations

import numpy as np
import pytest

from ensconce.client.channel import open_channel
from ensconce.client.channel_aio import open_async_channel

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")
apis = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc", reason="no tensorflow-serving-api")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")


def request():
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "digits"
    made.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ones((1, 2), np.float32)))
    return made


def test_they_work_on_the_channel(world, grpc_replica) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    with open_channel(world.service(*(each.target for each in replicas))) as channel:
        stub = apis.PredictionServiceStub(channel)
        answers = [stub.Predict(request(), 30), stub.Predict.future(request(), 30).result()]
    assert [tf.make_ndarray(answer.outputs["images"]).tolist() for answer in answers] == [[[2.0, 2.0]]] * 2
    assert [replica.served for replica in replicas] == [1, 1]


async def test_they_work_on_the_channel_of_an_event_loop(world, grpc_replica) -> None:
    async with await open_async_channel(world.service(grpc_replica(world.replica()).target)) as channel:
        answer = await apis.PredictionServiceStub(channel).Predict(request(), timeout=30)
    assert tf.make_ndarray(answer.outputs["images"]).tolist() == [[2.0, 2.0]]
