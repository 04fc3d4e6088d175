"""What the proxy costs: ResNet-50 as deployed, asked directly over TLS and through ``ensconce proxy``, by turns.

    python benchmarks/proxy.py [--work FOLDER] [--rounds N] [--requests N] [--concurrency N ...] [--protocol grpc rest]

The models are those of ``make bench-serving``. h2load asks for one image a request, 600 kB over gRPC, 1 MB of JSON over
REST: over TLS at the gateway, and in the clear at the proxy, which goes over attested TLS to the same gateway. The
direct client judges no evidence.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from benchmarks.serving import h2load, protocols  # noqa: E402
from benchmarks.serving.deployed import DOMAIN, Deployment  # noqa: E402
from benchmarks.serving.h2load import Target  # noqa: E402
from benchmarks.serving.network import unpaced  # noqa: E402
from benchmarks.serving.processes import Process, environment, free_ports  # noqa: E402
from benchmarks.serving.results import ratio, summarize  # noqa: E402

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MODEL = "resnet50"


def main() -> None:
    """Start, ask by turns, tell."""
    options = _options()
    model: Path = options.work / "models" / options.model
    if not (model / "model.bin").is_file():
        print(f"there is no {model}: make bench-serving makes it")
        return
    print(f"TCP on loopback: {unpaced()}", flush=True)
    folder = options.work / "proxy"
    deployment = Deployment(folder / "deployment", {MODEL: model.resolve()})
    proxy: Process | None = None
    try:
        deployment.start()
        ports = {"grpc": free_ports(1)[0], "rest": free_ports(1)[0]}
        proxy = _proxy(deployment, ports, folder / "proxy.log")
        for protocol in options.protocol:
            direct, through = _targets(deployment, ports[protocol], protocol, options.input)
            for concurrency in options.concurrency:
                for target in (direct, through):
                    h2load.run(target, concurrency, 2 * concurrency + 10)
                _compare(direct, through, protocol, concurrency, options)
    finally:
        if proxy is not None:
            proxy.stop()
        deployment.stop()


def _targets(deployment: Deployment, port: int, protocol: str, name: str) -> tuple[Target, Target]:
    """The service itself, and the proxy's port."""
    if protocol == "grpc":
        at, path, body = deployment.grpc, PREDICT, protocols.framed(protocols.tfs_body(MODEL, name, _image()))
        return (
            Target(f"https://{DOMAIN}:{at}{path}", body, f"127.0.0.1:{at}", protocols.GRPC_HEADERS, answer=100),
            Target(f"http://127.0.0.1:{port}{path}", body, None, protocols.GRPC_HEADERS, answer=100),
        )
    # Pixels as most clients send them: whole numbers.
    at, path, body = deployment.rest, f"/v1/models/{MODEL}:predict", protocols.rest_body(np.floor(_image() * 256))
    return (
        Target(f"https://{DOMAIN}:{at}{path}", body, f"127.0.0.1:{at}", protocols.JSON_HEADERS, True, answer=20),
        Target(f"http://127.0.0.1:{port}{path}", body, None, protocols.JSON_HEADERS, True, answer=20),
    )


def _proxy(deployment: Deployment, ports: dict[str, int], log: Path) -> Process:
    [status] = free_ports(1)
    command = [sys.executable, "-P", "-m", "ensconce", "-v", "proxy", f"127.0.0.1:{deployment.grpc}"]
    command += ["--listen", f"127.0.0.1:{ports['grpc']}", "--rest", f"127.0.0.1:{deployment.rest}"]
    command += ["--listen-rest", f"127.0.0.1:{ports['rest']}", "--status", f"127.0.0.1:{status}"]
    command += ["--server-name", DOMAIN]
    command += ["--policy", str(deployment.policy), "--ca", str(deployment.ca)]
    command += ["--pccs", f"http://127.0.0.1:{deployment.pccs}"]
    started = Process(command, log, cwd=log.parent, env=environment())
    ask = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{status}/readyz"]
    end = time.monotonic() + 30
    while subprocess.run(ask, check=False).returncode:
        if time.monotonic() > end:
            raise SystemExit(f"the proxy is not ready: {log.read_text()}")
        time.sleep(0.1)
    return started


def _compare(direct: Target, through: Target, protocol: str, concurrency: int, options: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {"direct": [], "through": []}
    p50s: dict[str, list[float]] = {"direct": [], "through": []}
    for _ in range(options.rounds):
        for name, target in (("direct", direct), ("through", through)):
            run = summarize(h2load.run(target, concurrency, options.requests), concurrency)
            rates[name].append(run.rate)
            p50s[name].append(run.p50 * 1e3)
    print(f"{protocol}, {concurrency} at once, {options.rounds} rounds of {options.requests} requests by turns")
    for name in rates:
        median, spread = statistics.median(rates[name]), (min(rates[name]), max(rates[name]))
        middle = statistics.median(p50s[name])
        print(f"  {name:8} {median:7.1f} images/s ({spread[0]:.1f} to {spread[1]:.1f})  p50 {middle:.1f} ms")
    print(f"  through the proxy over direct: {ratio(rates['through'], rates['direct'])}", flush=True)


def _image() -> np.ndarray:
    return np.random.default_rng(1).random((1, 224, 224, 3), dtype=np.float32)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-serving", help="has models/")
    parser.add_argument("--model", default="resnet50-bf16", help="the folder of one of them")
    parser.add_argument("--input", default="images", help="its input's name")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--protocol", nargs="+", choices=["grpc", "rest"], default=["grpc", "rest"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
