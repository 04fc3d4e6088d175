from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ensconce.serving.batching.scheduler import BatchRecord
from ensconce.serving.metrics import METRICS_PATH, Metrics, metrics_path
from ensconce.serving.observing import Answered
from ensconce.tfserving.messages import MonitoringConfig
from ensconce.tfserving.refusal import Code


def answered(**changes: Any) -> Answered:
    given: dict[str, Any] = {
        "entrypoint": "REST",
        "method": "Predict",
        "model": "digits",
        "version": 3,
        "signature": "serving_default",
        "code": Code.OK,
        "status": 200,
        "seconds": 0.0005,
        "received": 10,
        "sent": 20,
        "peer": "127.0.0.1:1",
    }
    return Answered(**{**given, **changes})


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus' own parser reads, by name (it gives every counter a _total) and labels."""
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.page())
        for sample in family.samples
    }


def test_requests_are_counted_as_the_original_counts_them() -> None:
    metrics = Metrics()
    metrics.answered(answered())
    metrics.answered(answered(entrypoint="GRPC", status=0))
    metrics.answered(answered(method="GetModelStatus"))
    metrics.answered(answered(entrypoint="GRPC", method="GetModelMetadata"))
    metrics.answered(answered(model="", code=Code.NOT_FOUND, status=404))
    read = samples(metrics)
    count = ":tensorflow:serving:request_count"
    assert read[count, (("model_name", "digits"), ("status", "OK"))] == 3
    assert read[count, (("model_name", ""), ("status", "NOT_FOUND"))] == 1
    latency = ":tensorflow:serving:request_latency"
    for api, entrypoint in (("predict", "REST"), ("Predict", "GRPC"), ("", "REST")):
        labels = (("API", api), ("entrypoint", entrypoint), ("model_name", "digits"))
        assert read[latency + "_count", labels] == 1
        assert read[latency + "_sum", labels] == pytest.approx(500)
    assert read["ensconce_serving_refused", (("entrypoint", "REST"), ("status", "NOT_FOUND"))] == 1
    assert read["ensconce_serving_received_bytes", (("entrypoint", "REST"),)] == 30


def test_buckets_are_the_originals() -> None:
    metrics = Metrics()
    metrics.answered(answered(seconds=18e-6))
    lines = [line for line in metrics.page().splitlines() if "request_latency_bucket" in line]
    labels = ':tensorflow:serving:request_latency_bucket{model_name="digits",API="predict",entrypoint="REST",le='
    assert lines[:3] == [f'{labels}"10"}} 0', f'{labels}"18"}} 1', f'{labels}"32.4"}} 1']
    assert lines[-1] == f'{labels}"+Inf"}} 1'
    assert len(lines) == 34


def test_batches_are_counted() -> None:
    metrics = Metrics()
    metrics.computed(BatchRecord("digits", 3, "serving_default", 2, 8, 3, (0.001, 0.002), 0.004))
    metrics.computed(BatchRecord("digits", 3, "serving_default", 1, 0, 0, (0.0,), 0.004))
    read = samples(metrics)
    batching = ":tensorflow:serving:batching_session:"
    assert read[batching + "wrapped_run_count", ()] == 2
    assert read[batching + "processed_batch_size_sum", ()] == 8
    assert read[batching + "padding_size_sum", (("execution_batch_size", "8"),)] == 3
    assert read[batching + "queuing_latency_sum", (("thread_pool_name", "digits"),)] == pytest.approx(3000)
    version = (("model", "digits"), ("version", "3"))
    assert read["ensconce_serving_queue_seconds_count", version] == 3
    assert read["ensconce_serving_batch_rows_count", version] == 1
    assert read["ensconce_serving_batch_requests_sum", version] == 3
    runtime = (("API", "Predict"), ("model_name", "digits"), ("runtime", "ensconce"))
    assert read[":tensorflow:serving:runtime_latency_sum", runtime] == pytest.approx(8000)


def test_loads_are_counted() -> None:
    times = iter([0.0, 2.0, 3.0, 3.5])
    metrics = Metrics()

    def loader(name: str, version: int, path: Path) -> Any:
        if version == 2:
            raise ValueError
        return object()

    load = metrics.counting(loader, lambda: next(times))
    load("a", 1, Path("/a/1"))
    with pytest.raises(ValueError):
        load("a", 2, Path("/a/2"))
    read = samples(metrics)
    attempts, latency = ":tensorflow:cc:saved_model:load_attempt_count", ":tensorflow:cc:saved_model:load_latency"
    assert read[attempts, (("model_path", "/a/1"), ("status", "success"))] == 1
    assert read[attempts, (("model_path", "/a/2"), ("status", "fail"))] == 1
    assert read[latency, (("model_path", "/a/1"),)] == 2_000_000


def test_gauges_and_strange_names() -> None:
    metrics = Metrics()
    metrics.gauge("depth", lambda: 2.5, front="a")
    metrics.gauge("depth", lambda: 3, front="a")
    metrics.answered(answered(model='a"\\\nb'))
    read = samples(metrics)
    assert read["depth", (("front", "a"),)] == 3
    assert read[":tensorflow:serving:request_count", (("model_name", 'a"\\\nb'), ("status", "OK"))] == 1


def test_where_metrics_are() -> None:
    config = MonitoringConfig()
    assert metrics_path(config) is None
    config.prometheus_config.enable = True
    assert metrics_path(config) == METRICS_PATH == "/monitoring/prometheus/metrics"
    config.prometheus_config.path = "/m"
    assert metrics_path(config) == "/m"
