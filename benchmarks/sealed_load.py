"""How long a sealed model takes to load, beside the same model in plaintext from the page cache.

    python benchmarks/sealed_load.py [--rounds N] [--folder DIR] [--keep]

The model has ResNet-50's layers and random weights (102 MB). Every load is a process of its own, which has imported
all it needs before the clock starts; rounds go A B A B, so that a slow minute of the machine hits both, and the ratio
is that of neighbours. Once with all processors, once with one processor and one thread, as in a small enclave.

* plaintext: what ``ensconce-model-server`` does with a folder (``serving.engines.folder.load_folder``).
* mapped: the same graph as OpenVINO itself reads it, whose weights then are the page cache's.
* sealed: what a replica does with a version's ciphertext and key (``models.load.open_sealed``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KEY = bytes(range(16))
NAME, VERSION = "resnet", 1
BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
# In the order in which they happen; what is left of a load is "other".
STEPS = ("list", "signatures", "xml", "weights", "core", "read_model", "compile", "requests")


def make(folder: Path) -> None:
    """ResNet-50 in OpenVINO's IR with random weights, and its signatures, in ``folder``."""
    import openvino
    from openvino import opset1 as ops

    random = np.random.default_rng(50)

    def convolved(node: Any, filters: int, size: int, stride: int, relu: bool = True) -> Any:
        channels = node.get_output_partial_shape(0)[1].get_length()
        scale = (2.0 / (channels * size * size)) ** 0.5
        kernel = random.standard_normal((filters, channels, size, size), np.float32) * np.float32(scale)
        pad = [size // 2] * 2
        node = ops.convolution(node, ops.constant(kernel), [stride] * 2, pad, pad, [1, 1])
        node = ops.add(node, ops.constant(random.standard_normal((1, filters, 1, 1), np.float32) * np.float32(0.1)))
        return ops.relu(node) if relu else node

    images = ops.parameter([-1, 3, 224, 224], np.float32, name="images")
    images.output(0).set_names({"images"})
    node = convolved(images, 64, 7, 2)
    node = ops.max_pool(node, [2, 2], [1, 1], [1, 1], [3, 3])
    for width, count, stride in BLOCKS:
        for number in range(count):
            step = stride if number == 0 else 1
            short = convolved(node, 4 * width, 1, step, relu=False) if number == 0 else node
            deep = convolved(convolved(node, width, 1, step), width, 3, 1)
            node = ops.relu(ops.add(convolved(deep, 4 * width, 1, 1, relu=False), short))
    node = ops.reduce_mean(node, ops.constant(np.array([2, 3], np.int64)), keep_dims=False)
    head = ops.constant(random.standard_normal((2048, 1000), np.float32) * np.float32(0.02))
    node = ops.softmax(ops.matmul(node, head, False, False), 1)
    node.output(0).set_names({"probabilities"})
    folder.mkdir(parents=True)
    model = openvino.Model([node], [images], "resnet50")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    signature = {
        "inputs": {"images": {"tensor": "images", "dtype": "DT_FLOAT", "shape": [-1, 3, 224, 224]}},
        "outputs": {"probabilities": {"tensor": "probabilities", "dtype": "DT_FLOAT", "shape": [-1, 1000]}},
        "method_name": "tensorflow/serving/predict",
    }
    (folder / "signatures.json").write_text(json.dumps({"signatures": {"serving_default": signature}}))


def seal(source: Path, models: Path) -> None:
    """The version in ``source``, sealed as `ensconce model seal` does, but for keystore and description."""
    from ensconce.encfile import encrypt_file
    from ensconce.models.contents import contents_bytes
    from ensconce.models.layout import CONTENTS, embedded_path

    target = models / NAME / str(VERSION)
    target.mkdir(parents=True)
    names = [path.name for path in source.iterdir()]
    listed = models / "contents"
    listed.write_bytes(contents_bytes(tuple(names)))
    for name, path in [(CONTENTS, listed), *((name, source / name) for name in names)]:
        encrypt_file(path, target / name, KEY, embedded_path=embedded_path(NAME, VERSION, name))
    listed.unlink()


class Clock:
    """Seconds spent in each step. A step inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, name: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a clock around it."""

        def run(*arguments: Any, **named: Any) -> Any:
            step = name if isinstance(name, str) else name(*arguments)
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                took = time.perf_counter() - start
                self.seconds[step] = self.seconds.get(step, 0.0) + took - self._inner.pop()
                self._inner[-1] += took

        return run


def step_of(path: str) -> str:
    """The step that reading (or decrypting) a file is."""
    return {".xml": "xml", ".bin": "weights"}.get(Path(path).suffix, "signatures")


def child(kind: str, folder: Path, threads: int) -> None:
    """Load once, in this process, and print what took how long."""
    if threads:
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[-1]])
    import openvino

    from ensconce.enclave import replica  # noqa: F401
    from ensconce.models import load
    from ensconce.serving.engines import folder as folders
    from ensconce.serving.engines import openvino_graph
    from ensconce.serving.engines.openvino import OpenVinoServable

    clock = Clock()
    openvino.Core.__init__ = clock.timed("core", openvino.Core.__init__)
    openvino.Core.read_model = clock.timed("read_model", openvino.Core.read_model)
    openvino.Core.compile_model = clock.timed("compile", openvino.Core.compile_model)
    openvino_graph._Pool.__init__ = clock.timed("requests", openvino_graph._Pool.__init__)
    folders.read_bounded = clock.timed(lambda path, _: step_of(path.name), folders.read_bounded)
    folders._weights = clock.timed("weights", folders._weights)
    load._decrypt = clock.timed(lambda _folder, _name, _version, path, _key: step_of(path), load._decrypt)
    load.scan = clock.timed("list", load.scan)
    start, cpu = time.perf_counter(), time.process_time()
    if kind == "plain":
        loaded: Any = folders.load_folder(folder, folders.FolderOptions(threads=threads or None))
    elif kind == "mapped":
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(folder / "model.xml"),
            "CPU",
            settings | ({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        )
        loaded = [compiled.create_infer_request() for _ in range(os.cpu_count() or 1)]
    else:
        files = load.open_sealed(folder, NAME, VERSION, KEY)
        loaded = OpenVinoServable(files, threads=threads or None)
        for path, content in files.items():
            if not path.endswith(".bin"):
                content[:] = bytes(len(content))
    total, cpu = time.perf_counter() - start, time.process_time() - cpu
    del loaded  # Not before: giving the memory back takes time, too.
    steps = {step: clock.seconds.get(step, 0.0) for step in STEPS}
    steps["other"] = total - sum(steps.values())
    print(json.dumps({"total": total, "cpu": cpu, **steps}))


def measured(kind: str, folder: Path, threads: int) -> dict[str, float]:
    """One load in a fresh process."""
    command = [sys.executable, __file__, "--child", kind, str(threads), "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


def main() -> None:
    """Make the model, load it by turns, and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None, help="where the model goes (default: a temporary folder)")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.folder, int(options.child[1]))
        return
    with tempfile.TemporaryDirectory(prefix="sealed-load-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        if not (folder / "plain").exists():
            make(folder / "plain")
            seal(folder / "plain", folder / "models")
        size = sum(path.stat().st_size for path in (folder / "plain").iterdir())
        print(f"{size / 1e6:.0f} MB, {options.rounds} rounds, load average {os.getloadavg()[0]:.1f}")
        for threads, what in ((0, f"{len(os.sched_getaffinity(0))} processors"), (1, "one processor, one thread")):
            compare(folder, threads, what, options.rounds)


def compare(folder: Path, threads: int, what: str, rounds: int) -> None:
    """Load by turns and print: ratios of neighbours, then where the time went."""
    print()
    kinds = {"plain": folder / "plain", "mapped": folder / "plain", "sealed": folder / "models"}
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for kind, where in kinds.items():
        measured(kind, where, threads)  # Into the page cache.
    for _ in range(rounds):
        for kind, where in kinds.items():
            results[kind].append(measured(kind, where, threads))
    for kind in ("plain", "mapped"):
        pairs = zip(results["sealed"], results[kind], strict=True)
        print(
            f"{what}: sealed / {kind} {spread([mine['total'] / theirs['total'] for mine, theirs in pairs], 1, '.2f')}"
        )
    print(f"{'ms':<12}" + "".join(f"{kind:>26}" for kind in kinds))
    for step in ("total", "cpu", *STEPS, "other"):
        row = [spread([each[step] for each in results[kind]], 1e3, ".1f") for kind in kinds]
        print(f"{step:<12}" + "".join(f"{cell:>26}" for cell in row))


def spread(values: list[float], scale: float, form: str) -> str:
    """Median, and smallest to largest."""
    numbers = [format(value * scale, form) for value in (statistics.median(values), min(values), max(values))]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


if __name__ == "__main__":
    main()
