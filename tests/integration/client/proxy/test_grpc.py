"""gRPC through the proxy: TensorFlow Serving's stubs on an insecure channel, attested TLS behind it."""

from __future__ import annotations

import grpc
import numpy as np

from ensconce.client.codec import PREDICT
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import from_proto, to_proto


def predict(channel: grpc.Channel, array=None, model: str = "digits", **options):
    method = channel.unary_unary(
        PREDICT, request_serializer=PredictRequest.SerializeToString, response_deserializer=PredictResponse.FromString
    )
    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["images"].CopyFrom(to_proto(np.arange(6, dtype=np.float32) if array is None else array))
    return from_proto(method(request, timeout=10, **options).outputs["images"])


def test_calls_are_shared_by_two_replicas(world, proxy, grpc_replica, wait_for) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    started = proxy(*(each.target for each in replicas))
    wait_for(lambda: len(started.running._upstreams["grpc"].replicas) == 2, "replicas")
    with grpc.insecure_channel(started.at["grpc"]) as channel:
        for _ in range(10):
            assert predict(channel).tolist() == [0, 2, 4, 6, 8, 10]
    assert [each.served for each in replicas] == [5, 5]
