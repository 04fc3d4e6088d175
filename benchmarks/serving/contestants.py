"""Who is measured: each can be started, asked for one image's class, asked under load, and set aside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import numpy as np
from benchmarks.serving import h2load, protocols
from benchmarks.serving.deployed import DOMAIN, Deployment
from benchmarks.serving.h2load import Target
from benchmarks.serving.processes import Process, StartError, environment, free_ports
from benchmarks.serving.results import Request

__all__ = ["Contestant", "Deployed", "InProcess", "Other", "Plain", "Settings"]

HERE = Path(__file__).parent
OTHERS = HERE / "others"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
INFER = "/inference.GRPCInferenceService/ModelInfer"
_LONGEST_S = 120
_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        work: for everything that is made.
        models: converted models by the name under which they are served.
        saved_models: what they were converted from.
        inputs: the name of each one's input.
        environments: holds the other servers' environments by name.
        tensorflow: the Python of the environment with TensorFlow.
    """

    work: Path
    models: Mapping[str, Path]
    saved_models: Mapping[str, Path]
    inputs: Mapping[str, str]
    environments: Path
    tensorflow: Path


class Contestant(Protocol):
    """One of them."""

    def start(self) -> None:
        """Make it ready to answer."""

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Ask it once."""

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """Ask it under load."""

    def pause(self) -> None:
        """Set it aside while others are measured."""

    def resume(self) -> None:
        """Take it up again."""

    def stop(self) -> None:
        """End it."""


class InProcess:
    """The engine alone, or TensorFlow: no server at all."""

    def __init__(self, settings: Settings, engine: str) -> None:
        ours = engine == "ensconce"
        self._folder = settings.work / "images"
        python = sys.executable if ours else settings.tensorflow
        models = settings.models if ours else settings.saved_models
        self._command = [python, HERE / "in_process.py", engine, *(f"{name}={path}" for name, path in models.items())]
        self._log = settings.work / "logs" / f"{engine}.log"
        self._files: dict[tuple[int, ...], Path] = {}
        self._talk: _Talk | None = None

    def start(self) -> None:
        """Load the models."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._talk = _Talk(self._command, self._log)

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image."""
        found: list[int] = self._order(model=model, images=str(self._file(images)), classes=True)
        return found

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """From ``concurrency`` threads."""
        order = {"model": model, "images": str(self._file(images)), "concurrency": concurrency, "requests": requests}
        return sorted((Request(*each) for each in self._order(**order)), key=lambda request: request.end)

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing was paused."""

    def stop(self) -> None:
        """End the process."""
        if self._talk is not None:
            self._talk.close()

    def _order(self, **order: Any) -> Any:
        assert self._talk is not None
        return self._talk.ask(order)

    def _file(self, images: np.ndarray) -> Path:
        path = self._folder / f"{'x'.join(map(str, images.shape))}.npy"
        if images.shape not in self._files:
            np.save(path, images)
            self._files[images.shape] = path
        return path


class _Talk:
    """A process that answers JSON lines."""

    def __init__(self, command: list[Any], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        self._log = log
        self._answer()

    def ask(self, order: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StartError(f"ended without an answer; see {self._log}")
        return json.loads(line)


class _OverGrpc:
    """What is the same for everything that speaks TensorFlow Serving's gRPC."""

    def __init__(self, settings: Settings) -> None:
        self._inputs = settings.inputs
        self._answers: dict[tuple[str, int], int] = {}

    def _url(self) -> tuple[str, str | None]:
        raise NotImplementedError

    def _channel(self) -> grpc.Channel:
        raise NotImplementedError

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image, in one request."""
        with self._channel() as channel:
            call = channel.unary_unary(PREDICT)
            answer = call(protocols.tfs_body(model, self._inputs[model], images), timeout=_LONGEST_S)
        self._answers[model, len(images)] = len(answer)
        return protocols.tfs_classes(answer)

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """By h2load."""
        url, connect = self._url()
        body = protocols.framed(protocols.tfs_body(model, self._inputs[model], images))
        answer = self._answers[model, len(images)]
        target = Target(url + PREDICT, body, connect, protocols.GRPC_HEADERS, answer=answer)
        return h2load.run(target, concurrency, requests)


class Plain(_OverGrpc):
    """Our server on plain model folders, outside any enclave."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings
        self.grpc, self.rest = free_ports(2)
        self.process: Process | None = None
        self._certificate = settings.work / "plain" / "certificate.pem"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._certificate.parent.mkdir(parents=True, exist_ok=True)
        self._certificate.unlink(missing_ok=True)
        models = [f"{name}={path.resolve()}" for name, path in self._settings.models.items()]
        command = [sys.executable, HERE / "plain_server.py", self.grpc, self.rest, self._certificate.parent, *models]
        log = self._settings.work / "logs" / "plain.log"
        self.process = Process(command, log, cwd=self._settings.work, env=environment())
        self.process.listens(self.grpc)
        self.process.listens(self.rest)

    def pause(self) -> None:
        """Stop it in its tracks."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self.process is not None:
            self.process.resume()

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()

    def scheme(self) -> str:
        """``https`` while this version's serving classes speak nothing else."""
        return "https" if self._certificate.exists() else "http"

    def _url(self) -> tuple[str, str | None]:
        return f"{self.scheme()}://localhost:{self.grpc}", None

    def _channel(self) -> grpc.Channel:
        address = f"localhost:{self.grpc}"
        if self.scheme() == "http":
            return grpc.insecure_channel(address, options=_UNBOUNDED)
        credentials = grpc.ssl_channel_credentials(self._certificate.read_bytes())
        return grpc.secure_channel(address, credentials, options=_UNBOUNDED)


class PlainRest:
    """The same server's REST API."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._answers: dict[tuple[str, int], int] = {}
        self.resume, self.pause = plain.resume, plain.pause

    def start(self) -> None:
        """It has been."""

    def stop(self) -> None:
        """It will be."""

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image, in one request."""
        found = httpx.post(
            self._url(model),
            content=protocols.rest_body(images),
            headers={"content-type": "application/json"},
            timeout=_LONGEST_S,
            verify=False,  # a certificate that was made for this
        )
        found.raise_for_status()
        self._answers[model, len(images)] = len(found.content)
        return protocols.rest_classes(found.content)

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """By h2load, HTTP/1.1."""
        body, answer = protocols.rest_body(images), self._answers[model, len(images)]
        target = Target(self._url(model), body, None, protocols.JSON_HEADERS, http1=True, answer=answer)
        return h2load.run(target, concurrency, requests)

    def _url(self, model: str) -> str:
        return f"{self._plain.scheme()}://localhost:{self._plain.rest}/v1/models/{model}:predict"


class Deployed(_OverGrpc):
    """Our server as it is deployed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        models = {name: path.resolve() for name, path in settings.models.items()}
        self._deployment = Deployment(settings.work / "deployment", models)

    def start(self) -> None:
        """The whole of it."""
        self._deployment.start()

    def pause(self) -> None:
        """It goes on; what it does unasked is less than can be measured."""

    def resume(self) -> None:
        """It was not paused."""

    def stop(self) -> None:
        """All of it."""
        self._deployment.stop()

    def _url(self) -> tuple[str, str | None]:
        return f"https://{DOMAIN}:{self._deployment.grpc}", f"127.0.0.1:{self._deployment.grpc}"

    def _channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._deployment.ca.read_bytes())
        options = [*_UNBOUNDED, ("grpc.ssl_target_name_override", DOMAIN)]
        return grpc.secure_channel(f"127.0.0.1:{self._deployment.grpc}", credentials, options=options)


@dataclass(frozen=True)
class Way:
    """How one of the others is started: its environment, its command with ``{grpc}``, ``{http}``, ``{work}`` to fill in."""

    environment: str
    command: tuple[str, ...]
    grpc: bool
    variables: Mapping[str, str] = field(default_factory=dict)


WAYS = {
    "mlserver": Way("mlserver", ("mlserver_start.py", "{work}", "{grpc}", "{http}"), True),
    "mlserver, batching": Way(
        "mlserver", ("mlserver_start.py", "{work}", "{grpc}", "{http}"), True, {"BENCH_BATCH": "16"}
    ),
    "mlserver, 1 worker process": Way(
        "mlserver", ("mlserver_start.py", "{work}", "{grpc}", "{http}"), True, {"BENCH_WORKERS": "1"}
    ),
    "kserve": Way("kserve", ("kserve_start.py", "{grpc}", "{http}"), True),
    "litserve": Way("litserve", ("litserve_start.py", "{http}"), False),
    "litserve, batching": Way("litserve", ("litserve_start.py", "{http}"), False, {"BENCH_BATCH": "16"}),
    "litserve, ZeroMQ": Way("litserve", ("litserve_start.py", "{http}"), False, {"BENCH_FAST": "1"}),
    "litserve, batching, ZeroMQ": Way(
        "litserve", ("litserve_start.py", "{http}"), False, {"BENCH_FAST": "1", "BENCH_BATCH": "16"}
    ),
    "litserve, 2 HTTP processes": Way("litserve", ("litserve_start.py", "{http}"), False, {"BENCH_SERVERS": "2"}),
    "bentoml": Way("bentoml", ("-m", "bentoml", "serve", "bentoml_service:Models", "--port", "{http}"), False),
    "bentoml, batching": Way(
        "bentoml",
        ("-m", "bentoml", "serve", "bentoml_service:Models", "--port", "{http}"),
        False,
        {"BENCH_BATCH": "16"},
    ),
    "bentoml, 2 processes": Way(
        "bentoml",
        ("-m", "bentoml", "serve", "bentoml_service:Models", "--port", "{http}"),
        False,
        {"BENCH_WORKERS": "2"},
    ),
}


class Other:
    """Somebody else's server, in its own environment, on the same converted models."""

    def __init__(self, settings: Settings, way: str, quick: frozenset[str]) -> None:
        """Prepare.

        Args:
            settings: where things are; of its models those named ``tiny`` and ``resnet50`` are served.
            way: which, and how.
            quick: models that one thread computes in less than it takes to hand them to another.
        """
        self._settings, self._way, self._name = settings, WAYS[way], way
        self._grpc, self._http = free_ports(2)
        self._answers: dict[tuple[str, int], int] = {}
        self._process: Process | None = None
        self._models = {
            name: {"folder": str(settings.models[name].resolve()), "quick": name in quick}
            for name in ("tiny", "resnet50")
            if name in settings.models
        }

    def start(self) -> None:
        """Start it, and wait until it listens."""
        slug = self._name.replace(", ", "-").replace(" ", "-")
        work = self._settings.work / "others" / slug
        fill = {"work": str(work), "grpc": str(self._grpc), "http": str(self._http)}
        python = self._settings.environments.resolve() / self._way.environment / "bin" / "python"
        env = {
            "BENCH_MODELS": json.dumps(self._models),
            "BENTOML_HOME": str(work),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONPATH": "",
            **self._way.variables,
        }
        command = [python, *(part.format(**fill) for part in self._way.command)]
        self._process = Process(command, self._settings.work / "logs" / f"{slug}.log", cwd=OTHERS, env=env)
        self._process.listens(self._grpc if self._way.grpc else self._http)

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image, in one request."""
        if self._way.grpc:
            with grpc.insecure_channel(f"127.0.0.1:{self._grpc}", options=_UNBOUNDED) as channel:
                answer = channel.unary_unary(INFER)(protocols.v2_body(model, images), timeout=_LONGEST_S)
            self._answers[model, len(images)] = len(answer)
            return protocols.v2_classes(answer)
        headers = {"content-type": "application/json"}
        found = httpx.post(self._url(model), content=self._json(images), headers=headers, timeout=_LONGEST_S)
        found.raise_for_status()
        self._answers[model, len(images)] = len(found.content)
        return protocols.base64_classes(found.content)

    def ask(self, model: str, images: np.ndarray, concurrency: int, requests: int) -> list[Request]:
        """By h2load."""
        answer = self._answers[model, len(images)]
        if self._way.grpc:
            body, headers = protocols.framed(protocols.v2_body(model, images)), protocols.GRPC_HEADERS
            target = Target(f"http://127.0.0.1:{self._grpc}{INFER}", body, None, headers, answer=answer)
        else:
            body, headers = self._json(images), protocols.JSON_HEADERS
            target = Target(self._url(model), body, None, headers, http1=True, answer=answer)
        return h2load.run(target, concurrency, requests)

    def pause(self) -> None:
        """Stop it in its tracks."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.resume()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()

    def _json(self, images: np.ndarray) -> bytes:
        return protocols.base64_body(images, listed=self._way.environment == "bentoml")

    def _url(self, model: str) -> str:
        return f"http://127.0.0.1:{self._http}/{model}"
