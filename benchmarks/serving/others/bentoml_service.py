"""BentoML: ``bentoml serve bentoml_service:Models``; JSON with the tensor in base64, batching as documented.

``BENCH_WORKERS``: processes; ``BENCH_BATCH``: ``max_batch_size`` of its adaptive batching; 0 is none.
"""

from __future__ import annotations

import base64
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bentoml
import numpy as np
from openvino_model import load, wanted

BATCH = int(os.environ.get("BENCH_BATCH", "0"))
BATCHING = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": 10_000} if BATCH else {}


def compute(model, images: list[str]) -> list[dict]:
    """Each request's outputs; a request has one text, of one tensor, which may have several rows."""
    arrays = [np.frombuffer(base64.b64decode(each), np.float32).reshape(-1, *model.shape) for each in images]
    found = model.predict(np.concatenate(arrays) if len(arrays) > 1 else arrays[0])
    at = np.cumsum([0, *map(len, arrays)])
    return [
        {name: array[a:b].tolist() for name, array in found.items()} for a, b in itertools.pairwise(at)
    ]  # fmt: skip


@bentoml.service(workers=int(os.environ.get("BENCH_WORKERS", "1")), logging={"access": {"enabled": False}})
class Models:
    """Both models."""

    def __init__(self) -> None:
        self._models = {name: load(name) for name in wanted()}

    @bentoml.api(**BATCHING)
    def tiny(self, images: list[str]) -> list[dict]:
        """The tiny model."""
        return compute(self._models["tiny"], images)

    @bentoml.api(**BATCHING)
    def resnet50(self, images: list[str]) -> list[dict]:
        """ResNet-50."""
        return compute(self._models["resnet50"], images)
