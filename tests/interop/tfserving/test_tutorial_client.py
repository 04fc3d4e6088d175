"""The client of Graphene's TensorFlow Serving tutorial, unmodified, against ``ensconce-model-server``."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.modelserver.certificates import issue_files, write_files

NAME = "resnet50-v15-fp32"
# Those of its entrypoint script.
FLAGS = (
    *("--enable_model_warmup=true", "--flush_filesystem_caches=false", "--enable_batching=false"),
    *("--rest_api_num_threads=64", "--tensorflow_session_parallelism=0", "--tensorflow_intra_op_parallelism=2"),
    *("--tensorflow_inter_op_parallelism=2", "--file_system_poll_wait_seconds=5"),
)


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A folder with the client's two files; OpenCV, which it needs for images alone, is there by name."""
    named = os.environ.get("ENSCONCE_TUTORIAL_CLIENT")
    if named is None:
        pytest.skip(
            "ENSCONCE_TUTORIAL_CLIENT names no folder with resnet_client_grpc.py and utils.py of"
            " intel/confidential-computing-zoo, cczoo/tensorflow-serving-cluster/tensorflow-serving/docker/client"
        )
    for name in ("resnet_client_grpc.py", "utils.py"):
        (tmp_path / name).write_bytes((Path(named) / name).read_bytes())
    (tmp_path / "cv2.py").touch()
    return tmp_path


def test_the_tutorials_client_works_unmodified(
    client: Path, tensorflow_python: Path, tmp_path: Path, find_port: Callable[[], int]
) -> None:
    write_model(tmp_path / "models" / "1")
    write_files(tmp_path / "ssl", issue_files("localhost", days=1, mutual=False, now=dt.datetime.now(dt.UTC)))
    url = f"localhost:{find_port()}"
    served = (f"--model_name={NAME}", f"--model_base_path={tmp_path / 'models'}", f"--port={url.partition(':')[2]}")
    server = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "ensconce.modelserver.program", *served, *FLAGS),
            f"--ssl_config_file={tmp_path / 'ssl' / 'ssl.cfg'}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        said = ""
        while "Running gRPC" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        assert len(re.findall("is ignored", said)) == 2
        done = subprocess.run(
            [
                *(tensorflow_python, client / "resnet_client_grpc.py", "-url", url),
                *("-crt", tmp_path / "ssl" / "server.crt", "-batch", "1", "-cnum", "1", "-loop", "5"),
            ],
            cwd=client,
            env={"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=110,
        )
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("query: secure channel") == 10
    assert "'predict'" in done.stdout


def write_model(folder: Path) -> None:
    """A model with the signature of the tutorial's: the mean of each colour instead of a thousand classes."""
    ov = pytest.importorskip("openvino", reason="openvino is not installed")
    ops = ov.opset13
    images = ops.parameter(ov.PartialShape([-1, 224, 224, 3]), ov.Type.f32)
    images.output(0).get_tensor().set_names({"input"})
    means = ops.reduce_mean(images, ops.constant([1, 2], ov.Type.i64), False)
    means.output(0).get_tensor().set_names({"predict"})
    folder.mkdir(parents=True)
    ov.save_model(ov.Model([ops.result(means)], [images]), folder / "model.xml", compress_to_fp16=False)
    signature = {
        "method_name": "tensorflow/serving/predict",
        "inputs": {"input": {"tensor": "input", "dtype": "DT_FLOAT", "shape": [-1, 224, 224, 3]}},
        "outputs": {"predict": {"tensor": "predict", "dtype": "DT_FLOAT", "shape": [-1, 3]}},
    }
    (folder / "signatures.json").write_text(json.dumps({"signatures": {"serving_default": signature}}))
