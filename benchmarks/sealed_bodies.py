"""What sealing bodies costs: ResNet-50 and the small model as deployed, asked unsealed and sealed, by turns.

    python benchmarks/sealed_bodies.py [--work FOLDER] [--rounds N] [--requests N] [--concurrency N ...] ...

The models are those of ``make bench-serving``. The client is gRPC's or httpx, in this process, with TLS to the gateway
and as many connections and threads as requests at once, whether it seals or not, and judges no connection: only sealing
differs. Processor time is this process's, client and load together, and the replica's (proc(5), ``stat``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import grpc  # noqa: E402
import httpx  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.serving import protocols  # noqa: E402
from benchmarks.serving.deployed import DOMAIN, Deployment  # noqa: E402
from benchmarks.serving.network import unpaced  # noqa: E402
from benchmarks.serving.results import Request, ratio, summarize  # noqa: E402

from ensconce.client import Service, sealed_channel, sealed_transport  # noqa: E402
from ensconce.client.channel import OPTIONS  # noqa: E402

PREDICT = "/tensorflow.serving.PredictionService/Predict"
SHAPES = {"resnet50": (1, 224, 224, 3), "tiny": (1, 8, 8, 1)}
KINDS = ("unsealed", "sealed")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Ask = Callable[[], object]


@dataclass(frozen=True)
class Taken:
    """A run: images a second, and milliseconds an image: latency, processor time here and of the replica."""

    rate: float
    p50: float
    client: float
    replica: float


class _Named(httpx.HTTPTransport):
    """TLS asks for the service's name, though it is reached by address."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": DOMAIN}
        return super().handle_request(request)


class Load:
    """Callers of one service."""

    def __init__(self, deployment: Deployment, held: contextlib.ExitStack) -> None:
        self._deployment, self._held = deployment, held
        self._pid = deployment.replica_pid()
        at = f"127.0.0.1:{deployment.grpc}"
        pccs = f"http://127.0.0.1:{deployment.pccs}"
        self._service = Service.open(
            at, deployment.policy, authority=deployment.ca, collateral=pccs, server_name=DOMAIN
        )

    def caller(self, protocol: str, kind: str, model: str) -> Ask:
        """A connection of its own, and what is asked on it."""
        pixels = np.random.default_rng(1).random(SHAPES[model], dtype=np.float32)
        if protocol == "grpc":
            return self._grpc(kind, protocols.tfs_body(model, "images", pixels))
        # Pixels as most clients send them: whole numbers.
        return self._rest(kind, f"/v1/models/{model}:predict", protocols.rest_body(np.floor(pixels * 256)))

    def run(self, callers: list[Ask], requests: int) -> Taken:
        """Ask so many times in all, each caller one at a time."""

        def each(ask: Ask) -> list[Request]:
            found = []
            for _ in range(requests // len(callers)):
                start = time.monotonic()
                ask()
                found.append(Request(start, time.monotonic() - start))
            return found

        before = time.process_time(), _processor_s(self._pid)
        with ThreadPoolExecutor(len(callers)) as threads:
            made = [request for found in threads.map(each, callers) for request in found]
        after = time.process_time(), _processor_s(self._pid)
        run = summarize(sorted(made, key=lambda request: request.end), len(callers))
        client, replica = ((late - early) / len(made) * 1e3 for early, late in zip(before, after, strict=True))
        return Taken(run.rate, run.p50 * 1e3, client, replica)

    def _grpc(self, kind: str, body: bytes) -> Ask:
        options = [*OPTIONS, ("grpc.ssl_target_name_override", DOMAIN)]
        credentials = grpc.ssl_channel_credentials(self._deployment.ca.read_bytes())
        channel = grpc.secure_channel(f"127.0.0.1:{self._deployment.grpc}", credentials, options)
        made = sealed_channel(channel, self._service, routes=1) if kind == "sealed" else channel
        call = self._held.enter_context(made).unary_unary(PREDICT, None, None)
        return lambda: call(body)

    def _rest(self, kind: str, path: str, body: bytes) -> Ask:
        transport: httpx.BaseTransport = _Named(verify=ssl.create_default_context(cafile=self._deployment.ca))
        base_url = f"https://127.0.0.1:{self._deployment.rest}"
        if kind == "sealed":
            transport = sealed_transport(transport, self._service, base_url, routes=1)
        client = self._held.enter_context(httpx.Client(transport=transport, base_url=base_url, timeout=60))
        return lambda: client.post(path, content=body).raise_for_status()


def main() -> None:
    """Start, ask by turns, tell."""
    options = _options()
    folders = {"resnet50": options.work / "models" / "resnet50-bf16", "tiny": ROOT / "examples" / "digits" / "openvino"}
    missing = [folder for folder in folders.values() if not (folder / "model.bin").is_file()]
    if missing:
        print(f"there is no {missing[0]}: make bench-serving makes it")
        return
    print(f"TCP on loopback: {unpaced()}", flush=True)
    models = {name: folders[name].resolve() for name in options.model}
    deployment = Deployment(options.work / "sealed-bodies", models, serving="  sealed_bodies: accepted\n")
    try:
        deployment.start()
        for model in models:
            for protocol in options.protocol:
                for concurrency in options.concurrency:
                    _compare(deployment, model, protocol, concurrency, options)
    finally:
        deployment.stop()


def _compare(deployment: Deployment, model: str, protocol: str, concurrency: int, options: argparse.Namespace) -> None:
    taken: dict[str, list[Taken]] = {kind: [] for kind in KINDS}
    requests = options.requests if model == "resnet50" else options.requests * 8
    with contextlib.ExitStack() as held:
        load = Load(deployment, held)
        callers = {kind: [load.caller(protocol, kind, model) for _ in range(concurrency)] for kind in KINDS}
        for kind in KINDS:
            load.run(callers[kind], 2 * concurrency + 10)
        for _ in range(options.rounds):
            for kind in KINDS:
                taken[kind].append(load.run(callers[kind], requests))
    print(f"{model}, {protocol}, {concurrency} at once, {options.rounds} rounds of {requests} requests by turns")
    for kind, runs in taken.items():
        rates = [run.rate for run in runs]
        p50, client, replica = (
            statistics.median(getattr(run, name) for run in runs) for name in ("p50", "client", "replica")
        )
        print(
            f"  {kind:8} {statistics.median(rates):7.1f} images/s ({min(rates):.1f} to {max(rates):.1f})"
            f"  p50 {p50:.2f} ms  processor: client {client:.2f} ms, replica {replica:.2f} ms"
        )
    unsealed, sealed = ([run.rate for run in taken[kind]] for kind in KINDS)
    print(f"  sealed over unsealed: {ratio(sealed, unsealed)}", flush=True)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-serving", help="has models/")
    parser.add_argument("--model", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--requests", type=int, default=150, help="of ResNet-50; of the small model eight times as many"
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--protocol", nargs="+", choices=["grpc", "rest"], default=["grpc", "rest"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
