from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest

from ensconce.proxy.metrics import Metrics


def test_replicas_that_are_gone_are_told_no_more() -> None:
    there: dict[str, Any] = {"a": SimpleNamespace(valid_until=10)}
    upstream: Any = SimpleNamespace(replicas=there, seats=[SimpleNamespace(replica_id="a")], failures=dict)
    metrics = Metrics({"grpc": upstream})
    metrics.ended("grpc", "OK", 0.1, "a", None)
    del there["a"]
    there["b"] = SimpleNamespace(valid_until=20)
    metrics.ended("grpc", "OK", 0.1, "b", None)
    page = generate_latest(metrics.registry).decode()
    assert 'replica_calls_total{protocol="grpc",replica="b"} 1.0' in page
    assert 'replica_calls_total{protocol="grpc",replica="a"}' not in page
    assert 'valid_until_seconds{protocol="grpc",replica="b"} 20.0' in page
