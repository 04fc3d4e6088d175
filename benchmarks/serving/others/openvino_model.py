"""What every other server computes with: the same OpenVINO model with the same settings as Ensconce's engine.

Runs in each server's own environment, which holds ``openvino`` and ``numpy`` and not Ensconce. The models to serve are
in the environment variable ``BENCH_MODELS`` as ``{"NAME": {"folder": FOLDER, "quick": BOOL}}`` (JSON).
"""

from __future__ import annotations

import json
import os
import queue
from pathlib import Path
from typing import Any

import numpy as np
import openvino


def wanted() -> dict[str, dict[str, Any]]:
    """The models to serve."""
    models: dict[str, dict[str, Any]] = json.loads(os.environ["BENCH_MODELS"])
    return models


class Model:
    """A converted model and its ``signatures.json``, computed by as many threads as ask."""

    def __init__(self, folder: str, quick: bool) -> None:
        """Load; ``quick`` is for models that are over before a second thread could help, as our engine finds out."""
        described = json.loads((Path(folder) / "signatures.json").read_text())
        signature = described["signatures"]["serving_default"]
        core = openvino.Core()
        model = core.read_model(Path(folder) / "model.xml")
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT" if quick else "LATENCY",
            "INFERENCE_PRECISION_HINT": described.get("precision", "f32"),
        }
        compiled = core.compile_model(model, "CPU", settings)
        [self.shape] = [tuple(each["shape"][1:]) for each in signature["inputs"].values()]
        names = [port.get_names() for port in compiled.outputs]
        self.outputs = {
            name: next(index for index, known in enumerate(names) if each["tensor"] in known)
            for name, each in signature["outputs"].items()
        }
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(max(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")), os.cpu_count() or 1)):
            self._requests.put(compiled.create_infer_request())

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """``classes`` (int64 [n]) and ``probabilities`` (float32 [n,10]) of float32 images."""
        request = self._requests.get()
        try:
            request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(images), images.flags.writeable))
            found = request.infer(share_outputs=False).to_tuple()
        finally:
            self._requests.put(request)
        return {name: found[index] for name, index in self.outputs.items()}


def load(name: str) -> Model:
    """The model of that name among the wanted ones."""
    return Model(**wanted()[name])
