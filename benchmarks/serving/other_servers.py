"""Others' servers, and the ways to start them that were tried: ``__main__`` says which of these are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import httpx
import numpy as np
from benchmarks.serving import h2load, protocols
from benchmarks.serving.contestants import HERE, UNBOUNDED, Settings
from benchmarks.serving.h2load import Target
from benchmarks.serving.processes import Process, free_ports
from benchmarks.serving.results import Request

__all__ = ["WAYS", "Other"]

OTHERS = HERE / "others"
INFER = "/inference.GRPCInferenceService/ModelInfer"
_LONGEST_S = 120


@dataclass(frozen=True)
class Way:
    """How one of them is started: in which environment, by what (``{grpc}``, ``{http}``, ``{work}`` to fill in)."""

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
        self._grpc = self._http = 0
        self._answers: dict[tuple[str, int], int] = {}
        self._process: Process | None = None
        self._models = {
            name: {"folder": str(settings.models[name].resolve()), "quick": name in quick}
            for name in ("tiny", "resnet50")
            if name in settings.models
        }

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._grpc, self._http = free_ports(2)
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
        command = [part.format(**fill) for part in self._way.command]
        self._process = Process([python, *command], self._settings.work / "logs" / f"{slug}.log", cwd=OTHERS, env=env)
        self._process.listens(self._grpc if self._way.grpc else self._http)

    def classes(self, model: str, images: np.ndarray) -> list[int]:
        """Of each image, in one request."""
        if self._way.grpc:
            with grpc.insecure_channel(f"127.0.0.1:{self._grpc}", options=UNBOUNDED) as channel:
                answer = channel.unary_unary(INFER, None, None)(protocols.v2_body(model, images), timeout=_LONGEST_S)
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
            body = protocols.framed(protocols.v2_body(model, images))
            url = f"http://127.0.0.1:{self._grpc}{INFER}"
            target = Target(url, body, None, protocols.GRPC_HEADERS, answer=answer)
        else:
            body = self._json(images)
            target = Target(self._url(model), body, None, protocols.JSON_HEADERS, http1=True, answer=answer)
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
