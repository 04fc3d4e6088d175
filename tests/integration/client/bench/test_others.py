"""The command against others' servers: plain, TLS, mutual TLS; gRPC and REST; what it writes and how it ends."""

from __future__ import annotations

import datetime as dt
import json
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ensconce.cli.main import app
from ensconce.errors import EnsconceError, InputError
from ensconce.modelserver.certificates import issue_files, write_files
from ensconce.tfserving.messages import InferMetadataResponse, InferRequest, InferResponse

DOMAIN = "others.example.test"


class V2:
    """A server that speaks the Open Inference Protocol over gRPC, and keeps the requests."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None, every: int = 0) -> None:
        self.requests: list[Any] = []
        self.every = every
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        handlers = {
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(lambda _request, _context: _metadata()),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer, InferRequest.FromString),
        }
        handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
        self.server.add_generic_rpc_handlers((handler,))
        if credentials is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def _infer(self, request: Any, context: grpc.ServicerContext) -> bytes:
        self.requests.append(request)
        if self.every and len(self.requests) % self.every == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        answer = InferResponse(model_name=request.model_name)
        answer.outputs.add(name="y", datatype="FP32", shape=[1])
        return bytes(answer.SerializeToString())


def _metadata() -> bytes:
    answer = InferMetadataResponse(name="m")
    answer.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    return bytes(answer.SerializeToString())


@pytest.fixture
def v2() -> Iterator[Callable[..., V2]]:
    made: list[V2] = []

    def make(*args: Any, **options: Any) -> V2:
        made.append(V2(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.server.stop(0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "files"
    write_files(folder, issue_files(DOMAIN, days=1, mutual=True, now=dt.datetime.now(dt.UTC)))
    return folder


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_everything_that_was_measured_is_in_the_json(v2: Callable[..., V2], tmp_path: Path) -> None:
    server = v2()
    page = tmp_path / "report.html"
    done = bench(
        *(f"127.0.0.1:{server.port}", "--plain", "--protocol", "v2-grpc", "--model", "m", "--version", 3),
        *("--batch", 2, "--concurrency", 3, "--loop", 4, "--warm-up", 5, "--json", "-", "--html", page),
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["requests"] == {"sent": 12, "answered": 12, "failed": 0}
    assert found["target"]["connection"] == "plain"
    assert found["load"]["loop"] == "closed"
    assert found["inputs"] == {"x": {"dtype": "float", "shape": [2, 4]}}
    assert found["replicas"] is None
    assert sum(found["timeline"]["answered"]) == sum(count for _, count in found["latency"]["histogram"]) == 12
    assert len(server.requests) == 1 + 5 + 12
    assert {request.SerializeToString() for request in server.requests} == {server.requests[0].SerializeToString()}
    assert (server.requests[0].model_version, list(server.requests[0].inputs[0].shape)) == ("3", [2, 4])
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_requests_that_fail_are_told_and_it_exits_with_1(v2: Callable[..., V2], tmp_path: Path) -> None:
    server, report = v2(every=5), tmp_path / "report.json"
    done = bench(
        *(f"127.0.0.1:{server.port}", "--plain", "--protocol", "v2-grpc", "--model", "m"),
        *("--requests", 9, "--warm-up", 0, "--json", report),
    )
    assert done.exit_code == 1
    assert "failed      2 grpc RESOURCE_EXHAUSTED: full" in done.stdout
    [failure] = json.loads(report.read_text())["failures"]
    assert failure == {"kind": "grpc RESOURCE_EXHAUSTED", "count": 2, "example": "full"}


def test_an_open_loop_at_a_rate(v2: Callable[..., V2]) -> None:
    server = v2()
    done = bench(
        *(f"127.0.0.1:{server.port}", "--plain", "--protocol", "v2-grpc", "--model", "m"),
        *("--rate", 100, "--arrivals", "constant", "--duration", 0.3, "--json", "-"),
    )
    found = json.loads(done.stdout)
    assert (done.exit_code, found["requests"]["sent"], found["load"]["loop"]) == (0, 30, "open")
    assert found["latency"]["p99"] >= found["latency_uncorrected"]["p99"]
    assert found["seconds"] >= 0.29  # when the last of them is due


def test_mutual_tls(v2: Callable[..., V2], tls: Path) -> None:
    read = {path.name: path.read_bytes() for path in tls.iterdir()}
    pairs = [(read["server.key"], read["server.crt"])]
    server = v2(grpc.ssl_server_credentials(pairs, read["ca.crt"], require_client_auth=True))
    arguments = (
        *(f"127.0.0.1:{server.port}", "--protocol", "v2-grpc", "--model", "m", "--requests", 3, "--timeout", 3),
        *("--tls-ca", tls / "ca.crt"),
    )
    shown = ("--tls-cert", tls / "client.crt", "--tls-key", tls / "client.key")
    done = bench(*arguments, *shown, "--server-name", DOMAIN, "--json", "-")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["target"]["connection"] == "mutual tls"
    asked = len(server.requests)
    for wrong in ((*arguments, "--server-name", DOMAIN), (*arguments, *shown, "--server-name", "else.example.test")):
        done = bench(*wrong)
        assert isinstance(done.exception, EnsconceError)
        assert done.exception.check == "bench.unanswered"
    assert len(server.requests) == asked


def test_images_as_strings_and_rows_of_a_file(v2: Callable[..., V2], tmp_path: Path) -> None:
    server = v2()
    rows = tmp_path / "rows.npy"
    np.save(rows, np.arange(12, dtype=np.float32).reshape(3, 4))
    arguments = (f"127.0.0.1:{server.port}", "--plain", "--protocol", "v2-grpc", "--model", "m", "--warm-up", 0)
    assert bench(*arguments, "--input", rows, "--requests", 3).exit_code == 0
    sent = [np.frombuffer(request.raw_input_contents[0], "<f4").tolist() for request in server.requests[1:]]
    assert sent == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    image = tmp_path / "cat.jpg"
    image.write_bytes(b"\xff\xd8\xff")
    done = bench(*arguments, "--input", image)
    assert isinstance(done.exception, EnsconceError)
    assert done.exception.check == "predict.input"


def test_interrupted_it_tells_what_was_measured(v2: Callable[..., V2], tmp_path: Path, wait_for: Any) -> None:
    server, report = v2(), tmp_path / "report.json"
    command = [sys.executable, "-P", "-m", "ensconce", "bench", f"127.0.0.1:{server.port}", "--plain"]
    command += ["--protocol", "v2-grpc", "--model", "m", "--warm-up", "3", "--loop", "0", "--json", str(report)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(server.requests) > 20, "requests")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (130, "interrupted\n")
    assert "until it was interrupted" in out
    found = json.loads(report.read_text())
    assert found["interrupted"]
    assert found["load"]["requests"] is found["load"]["duration"] is None
    sent, answered, failed = (found["requests"][each] for each in ("sent", "answered", "failed"))
    assert answered > 10
    assert sent - answered - failed in (0, 1)


def test_what_was_measured_is_said_where_it_cannot_be_written(v2: Callable[..., V2], tmp_path: Path) -> None:
    done = bench(
        *(f"127.0.0.1:{v2().port}", "--plain", "--protocol", "v2-grpc", "--model", "m", "--requests", 3),
        *("--html", tmp_path / "absent" / "report.html"),
    )
    assert "3 answered, 0 failed" in done.stdout
    assert isinstance(done.exception, InputError)
    assert done.exception.check == "file.create"


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]})

    def do_POST(self) -> None:
        json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]})

    def _answer(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_rest_over_mutual_tls(tls: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    context.load_verify_locations(tls / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Rest)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        done = bench(
            *(f"127.0.0.1:{server.server_address[1]}", "--protocol", "v2-rest", "--model", "m", "--requests", 20),
            *("--tls-ca", tls / "ca.crt", "--tls-cert", tls / "client.crt", "--tls-key", tls / "client.key"),
            *("--server-name", DOMAIN, "--concurrency", 2),
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.exit_code == 0, done.exception
    assert "20 answered, 0 failed" in done.stdout
