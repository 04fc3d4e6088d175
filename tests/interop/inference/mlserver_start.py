"""``mlserver_start.py FOLDER GRPC_PORT HTTP_PORT``: MLServer with two models; its settings are written to FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

RUNTIME = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse

class Runtime(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        x = payload.inputs[0]
        if x.datatype == "BYTES":
            y = np.array([len(each) for each in x.data.root], np.int32)
        else:
            y = NumpyCodec.decode_input(x) * 2
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""


def main() -> None:
    """Write and run."""
    from mlserver.cli.main import main as mlserver

    folder = Path(sys.argv[1])
    folder.mkdir()
    (folder / "double_or_sizes.py").write_text(RUNTIME)
    sys.path.insert(0, str(folder))
    settings = {"host": "127.0.0.1", "grpc_port": int(sys.argv[2]), "http_port": int(sys.argv[3])}
    settings |= {"parallel_workers": 0, "metrics_endpoint": None, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, datatype, shape in (("double", "FP32", [-1, 4]), ("sizes", "BYTES", [-1, 1])):
        model = {"name": name, "implementation": "double_or_sizes.Runtime"}
        model["inputs"] = [{"name": "x", "datatype": datatype, "shape": shape}]
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    sys.argv = ["mlserver", "start", str(folder)]
    mlserver()


main()
