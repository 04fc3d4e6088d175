"""``triton_start.py FOLDER GRPC_PORT HTTP_PORT``: the Triton that nvidia-pytriton's wheel holds, with two models.

FOLDER becomes its model repository and the folder of its backends, of which the wheel has the one for Python.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

MODEL = """
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("y", self.answer(each))]) for each in requests]

    def answer(self, request):
        x = pb.get_input_tensor_by_name(request, "x").as_numpy()
        return x * 2 if x.dtype == np.float32 else np.vectorize(len)(x).astype(np.int32)
"""
CONFIG = (
    'backend: "python" max_batch_size: 8 '
    'input [{{name: "x" data_type: {} dims: [{}]}}] output [{{name: "y" data_type: {} dims: [{}]}}]'
)


def main() -> None:
    """Write the folder and become the server."""
    folder, grpc_port, http_port = Path(sys.argv[1]), *sys.argv[2:4]
    [package] = importlib.util.find_spec("pytriton").submodule_search_locations
    home = Path(package) / "tritonserver"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = home / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    for file in (*(home / "backends" / "python").iterdir(), *stub.iterdir()):
        (backend / file.name).symlink_to(file)
    for name, types in (("double", ("TYPE_FP32", 4, "TYPE_FP32", 4)), ("sizes", ("TYPE_STRING", 1, "TYPE_INT32", 1))):
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "1" / "model.py").write_text(MODEL)
        (folder / "models" / name / "config.pbtxt").write_text(CONFIG.format(*types))
    command = [str(home / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}", "--allow-metrics=false"]
    command += [f"--backend-directory={folder / 'backends'}", f"--grpc-port={grpc_port}", f"--http-port={http_port}"]
    command += ["--grpc-address=127.0.0.1", "--http-address=127.0.0.1"]
    # Its models run in a Python of its own, which looks for NumPy where this one has it.
    os.execve(command[0], command, dict(os.environ, PYTHONPATH=str(Path(package).parent)))


main()
