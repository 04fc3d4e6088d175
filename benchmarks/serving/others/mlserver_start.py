"""Start MLServer: ``mlserver_start.py FOLDER GRPC_PORT HTTP_PORT`` writes its settings to FOLDER and runs it there.

``BENCH_WORKERS``: processes that compute (``parallel_workers``); 0, the quickest, computes in the serving process.
``BENCH_BATCH``: ``max_batch_size`` of its adaptive batching; 0 is none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Write and run."""
    from mlserver.cli.main import main as mlserver

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    sys.path.insert(0, str(Path(__file__).parent))
    folder = Path(sys.argv[1])
    batch = int(os.environ.get("BENCH_BATCH", "0"))
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "grpc_port": int(sys.argv[2]),
        "http_port": int(sys.argv[3]),
        "parallel_workers": int(os.environ.get("BENCH_WORKERS", "0")),
        "grpc_max_message_length": 64 * 2**20,
        "metrics_endpoint": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    for name in json.loads(os.environ["BENCH_MODELS"]):
        model = {"name": name, "implementation": "mlserver_runtime.OpenVinoRuntime"}
        if batch:
            model |= {"max_batch_size": batch, "max_batch_time": 0.001}
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    sys.argv = ["mlserver", "start", str(folder)]
    mlserver()


# Its workers are spawned, and import this again.
if __name__ == "__main__":
    main()
