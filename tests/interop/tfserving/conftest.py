from __future__ import annotations

import asyncio
import datetime
import importlib.util
import ipaddress
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.serving.manager import ModelManager
from ensconce.serving.server import ModelServer

ROOT = Path(__file__).parents[3]
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def tensorflow_python() -> Path:
    """A Python that has TensorFlow Serving's published client, tensorflow-serving-api."""
    named = os.environ.get("ENSCONCE_TF_PYTHON")
    python = Path(named) if named else ROOT / ".venv-tf" / "bin" / "python"
    if not python.exists():
        pytest.skip(
            f"no {python}: run make interop-env, or point ENSCONCE_TF_PYTHON at one with tensorflow-serving-api"
        )
    probe = "import importlib.util as u, sys; sys.exit(not (u.find_spec('tensorflow_serving')))"
    if subprocess.run([python, "-c", probe], timeout=60).returncode != 0:
        pytest.skip(f"{python} has no tensorflow-serving-api")
    return python


@pytest.fixture(scope="session")
def run(tensorflow_python: Path) -> Run:
    """Run a program of this folder with that Python; it gets ``given`` as JSON and prints JSON."""

    def run(program: str, *arguments: str, given: Any = None) -> Any:
        path = Path(__file__).with_name(program)
        # Nothing of ours may be on its path, and nothing of our environment reaches it.
        environment = {"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(
            [tensorflow_python, "-I", path, *arguments],
            input=None if given is None else json.dumps(given).encode(),
            capture_output=True,
            env=environment,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, Path]]:
    """A server with the digits model: its gRPC port, its REST port, and a file with the root to trust."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from ensconce.serving.engines.openvino import OpenVinoServable

    files = {path.name: path.read_bytes() for path in (ROOT / "examples" / "digits" / "openvino").iterdir()}
    manager = ModelManager()
    manager.add("digits", 1, OpenVinoServable(files))
    manager.add("line", 4, OpenVinoServable(_line(tmp_path_factory.mktemp("line"))))
    key, certificate = _self_signed()
    root = tmp_path_factory.mktemp("root") / "root.pem"
    root.write_bytes(certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[ModelServer, int, int]:
        server = ModelServer(
            manager,
            grpc_address="127.0.0.1:0",
            rest_address="127.0.0.1:0",
            private_key_pem=key,
            certificate_chain_pem=certificate,
        )
        ports = await server.start()
        return server, ports.grpc, ports.rest

    running, grpc_port, rest_port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield grpc_port, rest_port, root
    asyncio.run_coroutine_threadsafe(running.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _line(folder: Path) -> dict[str, bytes]:
    """A model that halves x and adds two, which is the regression and the score of two classes."""
    import openvino as ov  # type: ignore[import-untyped]
    from openvino import opset13 as ops  # type: ignore[import-untyped]

    x = ops.parameter(ov.PartialShape([-1, 1]), ov.Type.f32)
    x.output(0).get_tensor().set_names({"x"})
    y = ops.add(ops.multiply(x, ops.constant(0.5, ov.Type.f32)), ops.constant(2.0, ov.Type.f32))
    y.output(0).get_tensor().set_names({"y"})
    both = ops.concat([x, y], 1)
    both.output(0).get_tensor().set_names({"both"})
    results = [ops.result(y), ops.result(both)]
    ov.save_model(ov.Model(results, [x]), folder / "model.xml", compress_to_fp16=False)
    examples = {"features": {"x": {"tensor": "x", "dtype": "DT_FLOAT", "shape": [1], "default": [8.0]}}}
    inputs = {"inputs": {"tensor": "examples", "dtype": "DT_STRING", "shape": [-1]}}
    regression = {"outputs": {"tensor": "y", "dtype": "DT_FLOAT", "shape": [-1, 1]}}
    classes = {
        "classes": {"tensor": "names", "dtype": "DT_STRING", "shape": [-1, 2], "constant": ["low", "high"]},
        "scores": {"tensor": "both", "dtype": "DT_FLOAT", "shape": [-1, 2]},
    }
    signatures = {
        name: {
            "method_name": f"tensorflow/serving/{method}",
            "inputs": inputs,
            "outputs": outputs,
            "examples": examples,
        }
        for name, method, outputs in (("serving_default", "regress", regression), ("classify", "classify", classes))
    }
    (folder / "signatures.json").write_text(json.dumps({"signatures": signatures}))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _self_signed() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("models.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)
