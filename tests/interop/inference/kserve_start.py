"""``kserve_start.py FOLDER GRPC_PORT HTTP_PORT``: KServe's Python server with two models; FOLDER is not needed."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KSERVE_LOGLEVEL", "ERROR")
grpc_port, http_port = map(int, sys.argv[2:4])
sys.argv = [*sys.argv[:1], "--configure_logging", "false"]

import kserve  # noqa: E402
import numpy as np  # noqa: E402


class Model(kserve.Model):
    """Twice the numbers, or how long the strings are."""

    def __init__(self, name: str, datatype: str, shape: list[int]) -> None:
        super().__init__(name)
        self._input = {"name": "x", "datatype": datatype, "shape": shape}
        self.ready = True

    async def get_input_types(self):
        """What it takes."""
        return [self._input]

    async def get_output_types(self):
        """Nobody asks."""
        return []

    async def predict(self, payload, headers=None, response_headers=None):  # the framework's
        """As raw bytes where the request's were."""
        x = payload.inputs[0].as_numpy()
        y = x * 2 if x.dtype == np.float32 else np.vectorize(len)(x).astype(np.int32)
        output = kserve.InferOutput("y", list(y.shape), "FP32" if x.dtype == np.float32 else "INT32")
        output.set_data_from_numpy(y, binary_data=True)
        return kserve.InferResponse(payload.id or "0", self.name, [output])


if __name__ == "__main__":
    models = [Model("double", "FP32", [-1, 4]), Model("sizes", "BYTES", [-1, 1])]
    kserve.ModelServer(http_port=http_port, grpc_port=grpc_port, workers=1).start(models)
