"""What Gramine costs: start-up and inference of a replica under gramine-direct, beside the same replica outside.

    ENSCONCE_GRAMINE_PREFIX=/opt/gramine python benchmarks/gramine.py [--rounds N] [--requests N] [--model FOLDER]

Nothing is measured where that variable names no Gramine 1.9. There is no SGX in it: enclave exits and paging come on
top. Every round runs each side once (A B A B ...), so that a slow minute of the machine hits both.

* Start-up: from the start of the process until ``ready.json`` says that it serves ResNet-50 (``--model``: a folder
  with OpenVINO's IR and signatures.json; otherwise its layers with random weights, 102 MB). A replica gets its keys
  from a provisioning server on this machine, with quotes of a simulated CPU. Processor time is until its end. Where
  others need the processors, too, what the main thread did not wait for them is what to compare.
* Inference: one request at a time over gRPC and TLS, to both sides by turns, a digit (256 bytes) and an image for
  ResNet-50.
* A trusted file beside an allowed one: opened and read whole for the first time, in one process.

Without Gramine: the image of the simulated platform, on the same interpreter with the same environment, started
directly; what its launcher hashes first is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "interop" / "gramine")]

DIGIT = np.zeros((1, 8, 8, 1), np.float32)
NATIVE = """
import sys
from pathlib import Path
from ensconce import platform
from ensconce.platform.gramine import GraminePlatform
here = GraminePlatform(Path("attestation").absolute())
platform.current = lambda: here
from ensconce.enclave import replica
sys.argv[1:] = ["enclave/server.json"]
replica.main()
"""
READ = """
import time
for number in range(ROUNDS):
    for kind in ("trusted", "allowed"):
        begin = time.perf_counter()
        with open(f"files/{kind}-{number}", "rb") as file:
            file.read()
        print(kind, time.perf_counter() - begin)
"""
FILE_MB = 32


def main() -> None:
    """Build both, run them by turns, and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=50, help="of each kind to each side in each round")
    parser.add_argument("--model", type=Path, default=None)
    options = parser.parse_args()
    prefix = os.environ.get("ENSCONCE_GRAMINE_PREFIX")
    if not prefix:
        print("nothing measured: ENSCONCE_GRAMINE_PREFIX names no Gramine 1.9")
        return
    os.environ["PATH"] = f"{Path(prefix) / 'bin'}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="gramine-") as folder:
        _measure(Path(folder), options)


def _measure(base: Path, options: argparse.Namespace) -> None:
    from gramine_world import DIGITS, now, owner_in

    from ensconce.enclave.trace import ENVIRONMENT, FLAGS, interpreter_path
    from ensconce.platform.simulated.pki import SimulatedVendor

    model = options.model or _made(base / "plain")
    names = ("resnet50", "digits")
    with ExitStack() as stack:
        owner = stack.enter_context(owner_in(base, SimulatedVendor(bytes(32), now())))
        owner.seal(model, "resnet50")
        owner.seal(DIGITS, "digits")
        gramine = owner.build(*names)
        inside = owner.folder()
        owner.attest(inside)
        servers = (f"127.0.0.1:{owner.server.port}",)
        simulated = owner.build(*names, platform="simulated", provisioning_servers=servers)
        outside = owner.folder()
        owner.speak_for(outside)
        owner.accept(gramine.mr_enclave, simulated.mr_enclave, models=names)
        command = (interpreter_path(), *FLAGS, "-c", NATIVE)
        starts = {
            "gramine-direct": lambda: owner.start(inside),
            "native": lambda: owner.start(outside, *command, **ENVIRONMENT),
        }
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}, {options.rounds} rounds\n")
        _start_up(starts, options.rounds)
        _inference(starts, options)
        _files(owner, inside, options.rounds)


def _made(folder: Path) -> Path:
    from sealed_load import make

    make(folder)
    return folder


def _start_up(starts: dict[str, Callable], rounds: int) -> None:
    took: dict[str, dict[str, list[float]]] = {side: {} for side in starts}
    for number in range(rounds + 1):
        for side, start in starts.items():
            before = _processor_time()
            process = start()
            process.ready()
            ready = time.time() - process.started
            resident, waited = _resident(process.child.pid), _waited(process.child.pid)
            stopped = process.stop()
            measured = {
                "ready, s": ready,
                "without waiting for a processor, s": ready - waited,
                "processor time, s": _processor_time() - before,
                "stopped after SIGTERM, s": stopped,
                "most memory, MB": resident,
            }
            measured |= {f"{each['event']}, s": each["time"] - process.started for each in process.events()[:2]}
            if number:  # The first fills the page cache.
                for what, value in measured.items():
                    took[side].setdefault(what, []).append(value)
    _print("start-up", took, ".2f")


def _inference(starts: dict[str, Callable], options: argparse.Namespace) -> None:
    random = np.random.default_rng(1)
    with ExitStack() as stack:
        processes = {side: start() for side, start in starts.items()}
        predict = {side: stack.enter_context(process.predicting()) for side, process in processes.items()}
        shape = _input_shape(options.model)
        images = {"digits": DIGIT, "resnet50": random.random(shape, np.float32)}
        took: dict[str, dict[str, list[float]]] = {side: {} for side in starts}
        for number in range(options.rounds + 1):
            for side, ask in predict.items():
                for name, image in images.items():
                    times = []
                    for _ in range(options.requests):
                        begin = time.perf_counter()
                        ask(name, images=image)
                        times.append(time.perf_counter() - begin)
                    if number:
                        took[side].setdefault(f"{name}, ms", []).append(statistics.median(times) * 1e3)
        _print(f"a request over gRPC and TLS, medians of {options.requests}", took, ".2f")
        for process in processes.values():
            process.stop()


def _input_shape(model: Path | None) -> tuple[int, ...]:
    if model is None:
        return (1, 3, 224, 224)
    signature = json.loads((model / "signatures.json").read_text())["signatures"]["serving_default"]
    return tuple(max(size, 1) for size in signature["inputs"]["images"]["shape"])


def _files(owner: object, folder: Path, rounds: int) -> None:
    from gramine_world import with_program

    (folder / "files").mkdir()
    trusted = []
    for number in range(rounds):
        data = os.urandom(FILE_MB << 20)
        for kind in ("trusted", "allowed"):
            (folder / "files" / f"{kind}-{number}").write_bytes(data)
        trusted.append(f'  {{ uri = "file:files/trusted-{number}", sha256 = "{hashlib.sha256(data).hexdigest()}" }},\n')
    manifest = folder / "enclave" / "server.manifest"
    text = with_program(manifest.read_text(), READ.replace("ROUNDS", str(rounds)))
    text = text.replace("sgx.trusted_files = [\n", f"sgx.trusted_files = [\n{''.join(trusted)}", 1)
    allowed = "".join(f'  "file:files/allowed-{number}",\n' for number in range(rounds))
    manifest.write_text(text.replace("sgx.allowed_files = [\n", f"sgx.allowed_files = [\n{allowed}", 1))
    process = owner.start(folder)
    process.child.wait(120)
    took: dict[str, dict[str, list[float]]] = {}
    for line in (folder / "out").read_text().splitlines():
        kind, seconds = line.split()
        took.setdefault(kind, {}).setdefault("ms for each MB", []).append(float(seconds) * 1e3 / FILE_MB)
    _print(f"a file of {FILE_MB} MB, opened and read", took, ".2f")


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e3


def _waited(pid: int) -> float:
    """Seconds that the main thread could have run and had no processor (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def _print(title: str, took: dict[str, dict[str, list[float]]], form: str) -> None:
    print(f"{title:<56}" + "".join(f"{side:>26}" for side in took))
    for what in next(iter(took.values())):
        cells = []
        for measured in took.values():
            values = [format(value(measured[what]), form) for value in (statistics.median, min, max)]
            cells.append(f"{values[0]} ({values[1]} to {values[2]})")
        print(f"  {what:<54}" + "".join(f"{cell:>26}" for cell in cells))
    print()


if __name__ == "__main__":
    main()
