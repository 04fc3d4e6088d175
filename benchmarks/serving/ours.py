"""Our server: on plain folders over gRPC and REST, and as it is deployed."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
from benchmarks.serving import h2load, protocols
from benchmarks.serving.contestants import UNBOUNDED, Settings
from benchmarks.serving.deployed import DOMAIN, Deployment
from benchmarks.serving.h2load import Target
from benchmarks.serving.processes import Process, environment, free_ports
from benchmarks.serving.results import Request

__all__ = ["Deployed", "Plain", "PlainRest"]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_LONGEST_S = 120


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
            call = channel.unary_unary(PREDICT, None, None)
            answer: bytes = call(protocols.tfs_body(model, self._inputs[model], images), timeout=_LONGEST_S)
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
    """``ensconce-model-server`` on plain model folders, outside any enclave, without TLS."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings
        self.grpc = self.rest = 0
        self.process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.grpc, self.rest = free_ports(2)
        config = self._configuration(self._settings.work / "plain")
        arguments = [f"--port={self.grpc}", f"--rest_api_port={self.rest}", f"--model_config_file={config}"]
        command = [sys.executable, "-P", "-m", "ensconce.modelserver.program", *arguments]
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

    def _configuration(self, folder: Path) -> Path:
        entries = []
        for name, model in self._settings.models.items():
            version = folder / name / "1"
            version.parent.mkdir(parents=True, exist_ok=True)
            version.unlink(missing_ok=True)
            version.symlink_to(model.resolve())
            entries.append(f'config {{ name: "{name}" base_path: "{version.parent}" model_platform: "tensorflow" }}')
        config = folder / "models.config"
        config.write_text("model_config_list {\n" + "\n".join(entries) + "\n}\n")
        return config

    def _url(self) -> tuple[str, str | None]:
        return f"http://127.0.0.1:{self.grpc}", None

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc}", options=UNBOUNDED)


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
        return f"http://localhost:{self._plain.rest}/v1/models/{model}:predict"


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
        options = [*UNBOUNDED, ("grpc.ssl_target_name_override", DOMAIN)]
        return grpc.secure_channel(f"127.0.0.1:{self._deployment.grpc}", credentials, options=options)
