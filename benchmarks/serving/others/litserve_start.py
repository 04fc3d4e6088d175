"""LitServe: ``litserve_start.py HTTP_PORT``; JSON with the tensor in base64, as its documentation sends images.

``BENCH_WORKERS``: processes that compute; ``BENCH_SERVERS``: processes that speak HTTP; ``BENCH_BATCH``:
``max_batch_size``; ``BENCH_FAST``: ``fast_queue`` (ZeroMQ).
"""

from __future__ import annotations

import base64
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import litserve
import numpy as np
from openvino_model import load, wanted


class Api(litserve.LitAPI):
    """One model."""

    def __init__(self, name: str, **options) -> None:
        super().__init__(api_path=f"/{name}", **options)
        self._name = name

    def setup(self, device) -> None:  # noqa: ARG002  # the framework's
        """Compile the model, in the process that computes."""
        self._model = load(self._name)

    def decode_request(self, request):
        """The tensor."""
        return np.frombuffer(base64.b64decode(request["images"]), np.float32).reshape(-1, *self._model.shape)

    def batch(self, inputs):
        """One tensor of several requests', which may have several rows each."""
        self._rows = [len(each) for each in inputs]
        return np.concatenate(inputs)

    def predict(self, images):
        """Both outputs."""
        return self._model.predict(images)

    def unbatch(self, output):
        """Each request's rows."""
        at = np.cumsum([0, *self._rows])
        return [{name: array[a:b] for name, array in output.items()} for a, b in itertools.pairwise(at)]

    def encode_response(self, output):
        """As JSON."""
        return {name: array.tolist() for name, array in output.items()}


if __name__ == "__main__":
    batch = int(os.environ.get("BENCH_BATCH", "1"))
    options = {"max_batch_size": batch, "batch_timeout": float(os.environ.get("BENCH_BATCH_S", "0.0"))}
    server = litserve.LitServer(
        [Api(name, **(options if batch > 1 else {})) for name in wanted()],
        accelerator="cpu",
        workers_per_device=int(os.environ.get("BENCH_WORKERS", "1")),
        fast_queue=os.environ.get("BENCH_FAST", "0") == "1",
        timeout=False,
    )
    servers = int(os.environ.get("BENCH_SERVERS", "1"))
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=servers, generate_client_file=False,
        log_level="error", access_log=False,
    )  # fmt: skip
