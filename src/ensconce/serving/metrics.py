"""Metrics as TensorFlow Serving's exporter writes them (util/prometheus_exporter.cc), and some that it has not.

Names, labels and buckets of the original's: servables/tensorflow/util.cc, batching/batching_util.h and
batching_session.cc, core/request_logger.cc, tensorflow/cc/saved_model/loader.cc. What the original has not is named
``ensconce_...``.

An enclave tells its host all of this. So labels are names and versions of models that are loaded, codes and numbers,
never what a client sent; that bounds their number as well.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ensconce.serving.batching.scheduler import BatchRecord
from ensconce.serving.engines import Servable
from ensconce.serving.loading import Loader
from ensconce.serving.observing import Answered

__all__ = ["METRICS_PATH", "Metrics", "metrics_path"]

METRICS_PATH: Final = "/monitoring/prometheus/metrics"

_Labels = tuple[str, ...]
# What the original counts as requests over gRPC (model_servers/prediction_service_impl.cc).
_COUNTED: Final = frozenset({"Predict", "Classify", "Regress"})
# The original names REST's methods as the path does, and leaves them empty for status and metadata.
_REST_NAMES: Final = {"Predict": "predict", "Classify": "classify", "Regress": "regress"}
_RUNTIME: Final = "ensconce"


def metrics_path(config: Any) -> str | None:
    """Where a ``MonitoringConfig`` wants metrics to be; None: nowhere."""
    prometheus = config.prometheus_config
    return (prometheus.path or METRICS_PATH) if prometheus.enable else None


def _exponential(scale: float, growth: float, count: int) -> tuple[float, ...]:
    """Limits as ``monitoring::Buckets::Exponential`` makes them; the last bucket is open."""
    limits = []
    bound = scale
    for _ in range(count):
        limits.append(bound)
        bound *= growth
    return tuple(limits)


_LATENCY: Final = _exponential(10, 1.8, 33)
_QUEUING: Final = _exponential(100, 1.2, 52)
_SIZES: Final = _exponential(1, 2, 14)
_QUEUE_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Counter:
    """Numbers that grow, by label values."""

    def __init__(self, name: str, *labels: str) -> None:
        self._name, self._labels = name, labels
        self._cells: dict[_Labels, int] = {}

    def add(self, values: _Labels, amount: int = 1) -> None:
        self._cells[values] = self._cells.get(values, 0) + amount

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self._name} counter"
        for values, number in sorted(self._cells.items()):
            yield f"{self._name}{_braces(self._labels, values)} {number}"


class _Histogram:
    """Distributions, by label values."""

    def __init__(self, name: str, limits: Sequence[float], *labels: str) -> None:
        self._name, self._limits, self._labels = name, limits, labels
        self._cells: dict[_Labels, tuple[list[int], list[float]]] = {}

    def add(self, values: _Labels, value: float) -> None:
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = ([0] * (len(self._limits) + 1), [0.0])
        cell[0][bisect_left(self._limits, value)] += 1
        cell[1][0] += value

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self._name} histogram"
        for values, (buckets, [total]) in sorted(self._cells.items()):
            count = 0
            for limit, number in zip((*self._limits, math.inf), buckets, strict=True):
                count += number
                text = f"{limit:.6g}" if limit < math.inf else "+Inf"
                yield f"{self._name}_bucket{_braces((*self._labels, 'le'), (*values, text))} {count}"
            yield f"{self._name}_sum{_braces(self._labels, values)} {total:.15g}"
            yield f"{self._name}_count{_braces(self._labels, values)} {count}"


class Metrics:
    """Everything that is counted, and the page that tells it; for any thread."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._lock = threading.Lock()
        serving, batching = ":tensorflow:serving:", ":tensorflow:serving:batching_session:"
        self._requests = _Counter(f"{serving}request_count", "model_name", "status")
        self._latency = _Histogram(f"{serving}request_latency", _LATENCY, "model_name", "API", "entrypoint")
        self._runtime = _Histogram(f"{serving}runtime_latency", _LATENCY, "model_name", "API", "runtime")
        self._logged = _Counter(f"{serving}request_log_count", "model_name", "status_code")
        self._queuing = _Histogram(f"{batching}queuing_latency", _QUEUING, "thread_pool_name")
        self._padding = _Histogram(f"{batching}padding_size", _SIZES, "execution_batch_size")
        self._batch = _Histogram(f"{batching}processed_batch_size", _SIZES)
        self._runs = _Counter(f"{batching}wrapped_run_count")
        self._loads = _Counter(":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status")
        self._load_time = _Counter(":tensorflow:cc:saved_model:load_latency", "model_path")
        self._queue_time = _Histogram("ensconce_serving_queue_seconds", _QUEUE_SECONDS, "model", "version")
        self._rows = _Histogram("ensconce_serving_batch_rows", _SIZES, "model", "version")
        self._merged = _Histogram("ensconce_serving_batch_requests", _SIZES, "model", "version")
        self._refused = _Counter("ensconce_serving_refused_total", "entrypoint", "status")
        self._received = _Counter("ensconce_serving_received_bytes_total", "entrypoint")
        self._sent = _Counter("ensconce_serving_sent_bytes_total", "entrypoint")
        self._series = [each for each in vars(self).values() if isinstance(each, _Counter | _Histogram)]
        self._gauges: dict[str, dict[str, Callable[[], float]]] = {}

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Tell a number that is asked for when the page is made.

        Args:
            name: of the metric.
            read: gives the number.
            labels: of this number among those of the same name.
        """
        cell = f"{name}{_braces(tuple(labels), tuple(labels.values()))}"
        with self._lock:
            self._gauges.setdefault(name, {})[cell] = read

    def answered(self, answered: Answered) -> None:
        """Count a request; an observer of the fronts."""
        rest, method = answered.entrypoint == "REST", answered.method
        with self._lock:
            self._received.add((answered.entrypoint,), answered.received)
            self._sent.add((answered.entrypoint,), answered.sent)
            if answered.code:
                self._refused.add((answered.entrypoint, answered.code.name))
            if rest or method in _COUNTED:
                self._requests.add((answered.model, answered.code.name))
                if not answered.code:
                    name = _REST_NAMES.get(method, "") if rest else method
                    self._latency.add((answered.model, name, answered.entrypoint), answered.seconds * 1e6)

    def computed(self, batch: BatchRecord) -> None:
        """Count a batch; an observer of the scheduler."""
        which = (batch.model, str(batch.version))
        with self._lock:
            self._runtime.add((batch.model, "Predict", _RUNTIME), batch.seconds * 1e6)
            self._runs.add(())
            self._merged.add(which, batch.requests)
            for seconds in batch.waited:
                self._queuing.add((batch.model,), seconds * 1e6)
                self._queue_time.add(which, seconds)
            if batch.rows:
                self._rows.add(which, batch.rows)
                self._batch.add((), batch.rows)
                if batch.padding:
                    # Only sizes that batches are padded to: without parameters every size occurs.
                    self._padding.add((str(batch.rows),), batch.padding)

    def logged(self, model: str, code: str) -> None:
        """Count a line of the request log."""
        with self._lock:
            self._logged.add((model, code))

    def counting(self, loader: Loader, clock: Callable[[], float] = time.monotonic) -> Loader:
        """A loader that counts what it loads, and what it does not."""

        def load(name: str, version: int, path: Path) -> Servable:
            began, status = clock(), "fail"
            try:
                servable = loader(name, version, path)
                status = "success"
            finally:
                with self._lock:
                    self._loads.add((str(path), status))
                    self._load_time.add((str(path),), int((clock() - began) * 1e6))
            return servable

        return load

    def page(self) -> str:
        """All of it, as Prometheus reads it."""
        with self._lock:
            lines = [line for each in self._series for line in each.lines()]
            gauges = {name: dict(cells) for name, cells in self._gauges.items()}
        for name, cells in sorted(gauges.items()):
            lines.append(f"# TYPE {name} gauge")
            lines += [f"{cell} {read():.15g}" for cell, read in cells.items()]
        return "\n".join(lines) + "\n"


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    pairs = [f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
