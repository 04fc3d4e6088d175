"""A closed loop: so many callers, each sending its next batch when the last one is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensconce.client.codec import Array
from ensconce.client.predict import Client

__all__ = ["LoadResult", "run"]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of it.

    Attributes:
        predictions: the outputs for each batch, in the order of the batches.
        latencies: seconds from sending a batch to its answer, float64, in the same order.
        per_replica: calls that each replica answered, by replica id.
        seconds: from the first call to the last answer.
    """

    predictions: tuple[dict[str, Array], ...]
    latencies: npt.NDArray[np.float64]
    per_replica: dict[str, int]
    seconds: float

    def percentile(self, percent: float) -> float:
        """The latency, in seconds, that so many percent of the calls stayed within (nearest rank, none made up)."""
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))


def run(client: Client, model: str, batches: Sequence[Mapping[str, Array]], *, concurrency: int = 1) -> LoadResult:
    """Predict every batch once.

    Args:
        client: its connections are shared by all callers.
        model: the model's name.
        batches: inputs of one call each; at least one.
        concurrency: number of callers.

    Raises:
        EnsconceError: the first call that failed; callers finish the call that they are in, and stop.
    """
    predictions: list[dict[str, Array]] = [{} for _ in batches]
    latencies = np.zeros(len(batches))
    queue = iter(range(len(batches)))
    lock, failed = threading.Lock(), threading.Event()
    before = client.calls

    def call() -> None:
        while not failed.is_set():
            with lock:
                number = next(queue, None)
            if number is None:
                return
            began = time.perf_counter()
            try:
                predictions[number] = client.predict(model, batches[number])
            except BaseException:
                failed.set()
                raise
            latencies[number] = time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="load") as pool:
        for caller in [pool.submit(call) for _ in range(concurrency)]:
            caller.result()
    seconds = time.perf_counter() - began
    return LoadResult(tuple(predictions), latencies, dict(Counter(client.calls) - Counter(before)), seconds)
