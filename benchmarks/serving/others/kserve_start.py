"""KServe's Python server, custom predictors: ``kserve_start.py GRPC_PORT HTTP_PORT``; gRPC, V2 protocol, raw tensors.

It has no batching of its own (that is a sidecar's, for its REST API v1 alone), and more processes for REST alone
(``workers``), so gRPC is one process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

os.environ.setdefault("KSERVE_LOGLEVEL", "ERROR")
sys.path.insert(0, str(Path(__file__).parent))
grpc_port, http_port = int(sys.argv[1]), int(sys.argv[2])
sys.argv = [*sys.argv[:1], "--configure_logging", "false"]

import kserve  # noqa: E402
from kserve import InferOutput, InferRequest, InferResponse  # noqa: E402
from openvino_model import load, wanted  # noqa: E402

TYPES = {"int64": "INT64", "float32": "FP32"}


class Quick(kserve.Model):
    """Computes where the request arrives."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._model = load(name)
        self.ready = True

    def predict(self, payload: InferRequest, headers=None) -> InferResponse:  # noqa: ARG002  # the framework's
        """Both outputs."""
        return self._response(self._model.predict(payload.inputs[0].as_numpy()))

    def _response(self, found):
        outputs = []
        for name, array in found.items():
            output = InferOutput(name, list(array.shape), TYPES[array.dtype.name])
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse("", self.name, outputs)


class Slow(Quick):
    """Computes in a thread, so that the loop goes on reading."""

    async def predict(self, payload: InferRequest, headers=None) -> InferResponse:  # noqa: ARG002  # the framework's
        """Both outputs."""
        return self._response(await asyncio.to_thread(self._model.predict, payload.inputs[0].as_numpy()))


if __name__ == "__main__":
    models = [Quick(name) if each["quick"] else Slow(name) for name, each in wanted().items()]
    workers = int(os.environ.get("BENCH_WORKERS", "1"))
    kserve.ModelServer(http_port=http_port, grpc_port=grpc_port, workers=workers, enable_latency_logging=False).start(
        models
    )
