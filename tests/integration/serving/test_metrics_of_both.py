from __future__ import annotations

import ssl
from typing import Any

import grpc
import httpx

from ensconce.serving.fronts import FrontOptions
from ensconce.serving.metrics import METRICS_PATH, Metrics
from ensconce.serving.request_log import RequestLog
from ensconce.serving.rest import RestOptions
from ensconce.tfserving import messages
from ensconce.tfserving.tensor import to_proto


async def test_both_fronts_are_counted_and_logged(serve: Any, held_out: Any) -> None:
    images, _ = held_out
    lines: list[bytes] = []
    options = FrontOptions(
        rest=RestOptions(metrics_path=METRICS_PATH),
        metrics=Metrics(),
        request_log=RequestLog(lambda line: lines.append(line) is None, lambda: {"digits": 1.0}),
    )
    running = await serve(options=options)
    context = ssl.create_default_context(cadata=running.issuer.root_pem.decode())
    credentials = grpc.ssl_channel_credentials(running.issuer.root_pem)
    name = (("grpc.ssl_target_name_override", "models.example"),)
    async with (
        httpx.AsyncClient(base_url=f"https://127.0.0.1:{running.ports.rest}", verify=context) as client,
        grpc.aio.secure_channel(f"127.0.0.1:{running.ports.grpc}", credentials, options=name) as channel,
    ):
        await client.post("/v1/models/digits:predict", json={"instances": images[:2].tolist()})
        request = messages.PredictRequest()
        request.model_spec.name = "digits"
        request.inputs["images"].CopyFrom(to_proto(images[:2]))
        call = channel.unary_unary(f"/{messages.PREDICTION_SERVICE}/Predict")
        await call(request.SerializeToString())
        page = (await client.get(METRICS_PATH)).text
    latency = ':tensorflow:serving:request_latency_count{model_name="digits",API='
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} 2\n' in page
    assert f'{latency}"predict",entrypoint="REST"}} 1\n' in page
    assert f'{latency}"Predict",entrypoint="GRPC"}} 1\n' in page
    assert "ensconce_serving_batch_rows_sum" in page
    assert [b'"entrypoint": "GRPC"' in line for line in lines] == [False, True]
