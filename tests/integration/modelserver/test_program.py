"""``ensconce-model-server`` as a process: started with flags, asked over sockets, ended by signals."""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import UnreachableError
from ensconce.modelserver.certificates import issue_files, write_files
from ensconce.tfserving import messages
from ensconce.tfserving.tensor import to_proto

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "openvino"
Start = Callable[..., "Program"]


class Program:
    """The program, with gRPC and REST on ports of their own."""

    def __init__(self, ports: tuple[int, int], *flags: str) -> None:
        self.grpc, self.rest = ports
        command = [sys.executable, "-P", "-m", "ensconce.modelserver.program", f"--port={self.grpc}"]
        self.process = subprocess.Popen(
            [*command, f"--rest_api_port={self.rest}", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.said: list[str] = []

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        if any(text in line for line in self.said):
            return
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return
        raise AssertionError("".join(self.said))

    def ready(self) -> Program:
        self.wait_for("Exporting HTTP/REST API")
        return self

    def get(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", data, timeout=20) as response:
            content = response.read()
            return json.loads(content) if "json" in response.headers["content-type"] else content.decode()

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, "".join(self.said) + rest


@pytest.fixture
def start(find_port: Callable[[], int]) -> Iterator[Start]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    programs: list[Program] = []

    def begin(*flags: str) -> Program:
        programs.append(Program((find_port(), find_port()), *flags))
        return programs[-1]

    yield begin
    for program in programs:
        program.process.kill()
        program.process.communicate()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("digits/1", "more/00000007"):
        shutil.copytree(DIGITS, tmp_path / "models" / name)
    return tmp_path / "models"


def predict(channel: grpc.Channel, name: str = "digits") -> Any:
    request = messages.PredictRequest()
    request.model_spec.name = name
    request.inputs["images"].CopyFrom(to_proto(np.zeros((2, 8, 8, 1), np.float32)))
    call = channel.unary_unary(
        f"/{messages.PREDICTION_SERVICE}/Predict",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages.PredictResponse.FromString,
    )
    return call(request, timeout=30, wait_for_ready=True)


def reload(channel: grpc.Channel, config: Any) -> Any:
    call = channel.unary_unary(
        f"/{messages.MODEL_SERVICE}/HandleReloadConfigRequest",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages.ReloadConfigResponse.FromString,
    )
    return call(messages.ReloadConfigRequest(config=config, metric_names=["m"]), timeout=60)


def listed(*models: tuple[str, Path]) -> Any:
    config = messages.ModelServerConfig()
    for name, path in models:
        config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
    return config


def test_one_model(start: Start, models: Path, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    flags = (f"--model_base_path={models}/digits", "--model_name=digits", f"--grpc_socket_path={socket}")
    program = start(*flags, "--rest_api_num_threads=3", "--grpc_channel_arguments=grpc.lb_policy_name=x").ready()
    for target in (f"127.0.0.1:{program.grpc}", f"unix:{socket}"):
        with grpc.insecure_channel(target) as channel:
            answer = predict(channel)
            assert (answer.model_spec.version.value, len(answer.outputs["classes"].int64_val)) == (1, 2)
    # Who comes second takes nothing from it.
    second = start(*flags).process
    assert "Address already in use" in second.communicate(timeout=60)[0]
    assert second.returncode == 2
    assert socket.exists()
    status = program.get("/v1/models/digits")
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert (
        len(program.get("/v1/models/digits:predict", {"instances": np.zeros((3, 8, 8, 1)).tolist()})["predictions"])
        == 3
    )
    code, said = program.end()
    assert code == 0
    assert "--rest_api_num_threads=3 is ignored" in said
    assert "gRPC channel argument grpc.lb_policy_name=x is ignored" in said
    assert f"Running gRPC ModelServer at 0.0.0.0:{program.grpc} ..." in said
    assert not socket.exists()


def test_a_configuration_of_several_models_followed_by_another(start: Start, models: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(str(listed(("digits", models / "digits"))))
    program = start(f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1").ready()
    with grpc.insecure_channel(f"127.0.0.1:{program.grpc}") as channel:
        assert predict(channel).model_spec.version.value == 1
        file.write_text(str(listed(("more", models / "more"))))
        program.wait_for("Successfully loaded servable version {name: more version: 7}")
        assert predict(channel, "more").model_spec.version.value == 7
        program.wait_for("Done unloading servable version {name: digits version: 1}")
        with pytest.raises(grpc.RpcError) as caught:
            predict(channel)
        assert caught.value.details() == "Servable not found for request: Latest(digits)"


def test_a_configuration_by_request(start: Start, models: Path) -> None:
    program = start(f"--model_base_path={models}/digits", "--model_name=digits").ready()
    with grpc.insecure_channel(f"127.0.0.1:{program.grpc}") as channel:
        answer = reload(channel, listed(("digits", models / "digits"), ("more", models / "more")))
        assert (answer.status.error_code, [metric.name for metric in answer.metric]) == (0, ["m"])
        assert {predict(channel, name).model_spec.version.value for name in ("digits", "more")} == {1, 7}
        with pytest.raises(grpc.RpcError) as caught:
            reload(channel, messages.ModelServerConfig())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "Only ModelConfigList is currently supported" in caught.value.details()
        assert predict(channel).model_spec.version.value == 1


def test_tls_and_clients_that_must_show_a_certificate(start: Start, models: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "tls", issue_files("a.test", days=2, mutual=True, now=dt.datetime.now(dt.UTC)))
    files = {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    program = start(
        f"--model_base_path={models}/digits", "--model_name=digits", f"--ssl_config_file={tmp_path}/tls/ssl.cfg"
    ).ready()
    options = [("grpc.ssl_target_name_override", "a.test")]
    target = f"127.0.0.1:{program.grpc}"
    known = grpc.ssl_channel_credentials(files["ca.crt"], files["client.key"], files["client.crt"])
    with grpc.secure_channel(target, known, options) as channel:
        assert predict(channel).model_spec.version.value == 1
    unknown = grpc.ssl_channel_credentials(files["ca.crt"])
    with grpc.secure_channel(target, unknown, options) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/x/y")(b"", timeout=10)

    # As the tutorial's client: over mutual TLS, with real images, in a loop of each of several callers.
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "picture.jpg")
    shown = [f"--tls-{each}={tmp_path}/tls/{name}" for each, name in (("cert", "client.crt"), ("key", "client.key"))]
    load = [f"--input={tmp_path}/picture.jpg", "--batch=2", "--concurrency=3", "--loop=4", "--json=-"]
    arguments = ["bench", target, "--server-name=a.test", f"--tls-ca={tmp_path}/tls/ca.crt", "--model=digits", *load]
    done = CliRunner().invoke(app, [*arguments, *shown])
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert found["target"]["connection"] == "mutual tls"
    assert found["requests"] == {"sent": 12, "answered": 12, "failed": 0}
    assert found["inputs"] == {"images": {"dtype": "float", "shape": [2, 8, 8, 1]}}
    done = CliRunner().invoke(app, [*arguments, "--timeout=10"])
    assert isinstance(done.exception, UnreachableError)


def test_batching_metrics_cors_and_values_as_content(start: Start, models: Path, tmp_path: Path) -> None:
    (tmp_path / "batching").write_text("max_batch_size { value: 16 } batch_timeout_micros { value: 100 }")
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/m" }')
    program = start(
        f"--model_base_path={models}/digits",
        "--model_name=digits",
        "--enable_batching",
        f"--batching_parameters_file={tmp_path}/batching",
        f"--monitoring_config_file={tmp_path}/monitoring",
        "--rest_api_enable_cors_support",
        "--enable_serialization_as_tensor_content",
    ).ready()
    with grpc.insecure_channel(f"127.0.0.1:{program.grpc}") as channel:
        classes = predict(channel).outputs["classes"]
        assert (len(classes.tensor_content), classes.int64_val) == (16, [])
    request = urllib.request.Request(
        f"http://127.0.0.1:{program.rest}/v1/models/digits", headers={"Origin": "http://x"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.headers["access-control-allow-origin"] == "*"
    with pytest.raises(urllib.error.HTTPError) as caught:
        program.get("/v1/models/digits:predict", {"instances": np.zeros((17, 8, 8, 1)).tolist()})
    assert "16" in json.loads(caught.value.read())["error"]
    program.get("/v1/models/digits:predict", {"instances": np.zeros((2, 8, 8, 1)).tolist()})
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} ' in program.get("/m")


@pytest.mark.parametrize(
    ("flags", "text", "code"),
    [
        (["--model_base_path=m", "--prot=1"], "unknown argument: --prot=1", 2),
        ([], "are empty!", 2),
        (["--model_config_file=bad"], "Error parsing text-format tensorflow.serving.ModelServerConfig", 2),
        (["--model_config_file=missing"], "missing", 2),
        (["--model_base_path=relative"], "to have an absolute path", 1),
        (
            ["--model_base_path={}/broken", "--max_num_load_retries=0"],
            "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available",
            1,
        ),
        (["--model_base_path={}/digits", "--ssl_config_file=bad"], "text-format tensorflow.serving.SSLConfig", 2),
        (["--model_base_path={}/digits", "--enable_batching", "--batching_parameters_file=few"], "must be positive", 2),
    ],
)
def test_mistakes_end_the_program(
    start: Start, models: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], text: str, code: int
) -> None:
    monkeypatch.chdir(models.parent)
    Path("bad").write_text("what is this")
    Path("few").write_text("max_batch_size { value: 0 }")
    (models / "broken" / "1").mkdir(parents=True)
    program = start(*(flag.format(models) for flag in flags))
    said, _ = program.process.communicate(timeout=60)
    assert text in said
    assert program.process.returncode == code
    assert "Traceback" not in said


def test_a_taken_port(start: Start, models: Path) -> None:
    first = start(f"--model_base_path={models}/digits", "--model_name=digits").ready()
    second = Program((first.grpc, first.rest), f"--model_base_path={models}/digits")
    said, _ = second.process.communicate(timeout=60)
    assert second.process.returncode == 2
    assert "serving.port" in said


def test_it_can_be_ended_while_it_waits_for_a_model(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    program = start(f"--model_base_path={tmp_path}/empty")
    program.wait_for("nothing under")
    assert program.end()[0] == 0


def test_version_and_help() -> None:
    run = [sys.executable, "-P", "-m", "ensconce.modelserver.program"]
    assert (
        "TensorFlow ModelServer: ensconce" in subprocess.run([*run, "--version"], capture_output=True, text=True).stdout
    )
    assert "--model_base_path" in subprocess.run([*run, "--help"], capture_output=True, text=True).stdout


def test_it_opens_as_many_files_as_the_system_lets_it(start: Start, models: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        program = start("--model_name=digits", f"--model_base_path={models}/digits")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    program.ready()
    assert resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
