"""Our server under full load for as long as told, and what its memory does meanwhile.

    python -m benchmarks.serving.soak [--seconds N] [--model tiny|resnet50] [--rest] [--plot FILE.png]

RSS (proc(5), all processes of the server) is read every second; the slope is that of a straight line through the last
two thirds, least squares. Nothing is judged. The load comes in runs of a few seconds each, on fresh connections, so
that connections come and go as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving import models as made
from benchmarks.serving.__main__ import ROOT
from benchmarks.serving.contestants import Settings
from benchmarks.serving.ours import Plain, PlainRest

_RUN_S = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Start, load, watch, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--model", choices=["tiny", "resnet50"], default="tiny")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rest", action="store_true", help="over REST rather than gRPC")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-serving")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--tensorflow", type=Path, default=ROOT / "build/bench/importing/bin/python")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    models = made.prepare(options.work.resolve() / "models", options.tensorflow)
    settings = Settings(
        options.work.resolve(), models.converted, models.saved, models.inputs, options.environments, options.tensorflow
    )
    plain = Plain(settings)
    contestant = PlainRest(plain) if options.rest else plain
    asked = models.images[options.model][: options.batch]
    plain.start()
    try:
        contestant.classes(options.model, asked)
        assert plain.process is not None
        memory = _Memory(plain.process.pid)
        memory.start()
        total, rate, begin = 0, 50.0, time.monotonic()
        while time.monotonic() - begin < options.seconds:
            count = max(round(rate * _RUN_S / options.concurrency), 1) * options.concurrency
            start = time.monotonic()
            total += len(contestant.ask(options.model, asked, options.concurrency, count))
            rate = count / (time.monotonic() - start)
            print(f"{time.monotonic() - begin:6.0f} s {total:10} requests {memory.last() / 2**20:8.1f} MiB", flush=True)
        memory.stop()
    finally:
        plain.stop()
    grown = slope(memory.seconds, memory.bytes)
    each = grown * memory.seconds[-1] / total
    first, most, last = (value / 2**20 for value in (memory.bytes[0], max(memory.bytes), memory.bytes[-1]))
    print(f"{total} requests, {total / memory.seconds[-1]:.0f} a second")
    print(f"RSS {first:.1f} MiB at first, {most:.1f} at most, {last:.1f} at last")
    print(f"slope of the last two thirds {grown * 3600 / 2**20:+.2f} MiB an hour, {each:+.2f} bytes a request")
    saved = {"seconds": memory.seconds, "bytes": memory.bytes, "requests": total, "model": options.model}
    results = options.work / "soak.json"
    results.write_text(json.dumps(saved))
    if options.plot:
        python = options.environments / "plot" / "bin" / "python"
        subprocess.run([python, Path(__file__).parent / "plot_soak.py", results, options.plot], check=True)


def slope(seconds: Sequence[float], values: Sequence[float]) -> float:
    """Of a straight line through the last two thirds, in units a second; 0 of fewer than two."""
    first = len(seconds) // 3
    if len(seconds) - first < 2:
        return 0.0
    return float(np.polyfit(seconds[first:], values[first:], 1)[0])


def resident(pid: int) -> int:
    """Bytes of RAM of a process and all its descendants; those that have just ended count nothing."""
    total = 0
    try:
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    except (OSError, IndexError):
        pass
    return total


class _Memory:
    """RSS over time."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stopping = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def start(self) -> None:
        """Begin to look."""
        self._begin = time.monotonic()
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and no longer."""
        self._stopping.set()
        self._thread.join()
        self._look()

    def last(self) -> int:
        """What was seen last."""
        return self.bytes[-1]

    def _watch(self) -> None:
        while not self._stopping.wait(1):
            self._look()

    def _look(self) -> None:
        self.bytes.append(resident(self._pid))
        self.seconds.append(time.monotonic() - self._begin)


if __name__ == "__main__":
    main()
