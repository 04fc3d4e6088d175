"""How quick serving is: our server and others', side by side, on this machine, in one run.

    python -m benchmarks.serving [--quick] [--rounds N] [--markdown FILE] [--plot FILE.png]

A ResNet-50 at 224x224 and a model of a few microseconds, one image a request and eight, 1, 4 and 16 requests at once:
the engine alone in process, our server on plain folders, our server as deployed, the same SavedModel in TensorFlow in
process, and MLServer, KServe's Python server and LitServe, or BentoML, on the same converted model. ``make
bench-serving`` makes their environments first. Nothing is judged: there are numbers, their spread, and ratios.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import models as made
from benchmarks.serving import tables
from benchmarks.serving.contestants import InProcess, Settings
from benchmarks.serving.measure import Entry, agreement, cells_of, check, measure
from benchmarks.serving.network import unpaced
from benchmarks.serving.other_servers import WAYS, Other
from benchmarks.serving.ours import Deployed, Plain, PlainRest
from benchmarks.serving.results import Cell, Run

ROOT = Path(__file__).parents[2]
BF16 = {"tiny": "tiny", "resnet50": "resnet50"}
INT8 = {"resnet50": "resnet50-int8"}
LABELS = {
    "engine": "engine in process",
    "engine-f32": "engine in process, f32",
    "engine-int8": "engine in process, int8",
    "plain": "our server, plain",
    "plain-rest": "our server, plain, REST",
    "deployed": "our server, as deployed",
    "deployed-int8": "our server, as deployed, int8",
    "tensorflow": "TensorFlow in process",
    "mlserver": "MLServer, gRPC",
    "kserve": "KServe, gRPC",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}


def main() -> None:
    """Prepare, start, check, measure, tell."""
    options = _options()
    work: Path = options.work.resolve()
    begin = time.monotonic()
    network = unpaced()
    print(f"TCP on loopback: {network}", flush=True)
    models = made.prepare(work / "models", options.tensorflow)
    settings = Settings(
        work, models.converted, models.saved, models.inputs, options.environments, options.tensorflow.absolute()
    )
    entries = _entries(settings, options)
    images = {name: models.images[name] for name in BF16}
    started = []
    try:
        for entry in entries:
            print(f"starting {entry.label}", flush=True)
            if entry.contestant not in started:
                started.append(entry.contestant)
                entry.contestant.start()
        check(entries, images, options.batch)
        agreed = _agreement(entries, images)
        for entry in entries:
            entry.contestant.pause()
        facts = _facts(options, agreed, network)
        print(f"ready after {time.monotonic() - begin:.0f} s; load {facts['load']:.1f}", flush=True)
        found = measure(
            entries,
            cells_of([name for name in BF16 if name in options.model], options.batch, options.concurrency),
            images,
            rounds=options.rounds,
            seconds=lambda cell: options.seconds * (1.5 if cell.model != "tiny" else 1),
            tell=_tell,
        )
    finally:
        for contestant in reversed(started):
            contestant.stop()
    labels = {entry.key: entry.label for entry in entries}
    saved = tables.to_json(found, labels, facts)
    results = work / "results.json"
    results.write_text(json.dumps(saved, indent=1))
    print(tables.text(found, labels))
    for name, value in agreed.items():
        print(f"top-1 agreement on {len(images['resnet50'])} images, {name}: {value:.2%}")
    print(f"{time.monotonic() - begin:.0f} s in all; {results}")
    if options.markdown:
        options.markdown.write_text(tables.markdown(found, labels, facts))
    if options.plot:
        python = options.environments / "plot" / "bin" / "python"
        subprocess.run([python, Path(__file__).parent / "plot.py", results, options.plot], check=True)


def _entries(settings: Settings, options: argparse.Namespace) -> list[Entry]:
    quick = frozenset({"tiny"})
    engine, plain, deployed = InProcess(settings, "ensconce"), Plain(settings), Deployed(settings)
    entries = [
        Entry("engine", LABELS["engine"], engine, BF16),
        Entry("engine-f32", LABELS["engine-f32"], engine, {"resnet50": "resnet50-f32"}),
        Entry("engine-int8", LABELS["engine-int8"], engine, INT8),
        Entry("plain", LABELS["plain"], plain, BF16),
        Entry("plain-rest", LABELS["plain-rest"], PlainRest(plain), {"tiny": "tiny"}),
        Entry("deployed", LABELS["deployed"], deployed, BF16),
        Entry("deployed-int8", LABELS["deployed-int8"], deployed, INT8),
        Entry("tensorflow", LABELS["tensorflow"], InProcess(settings, "tensorflow"), BF16),
    ]
    chosen = [entry for entry in entries if not options.only or entry.key in options.only]
    for way in options.others:
        chosen.append(Entry(way, LABELS.get(way, way), Other(settings, way, quick), BF16))
    return chosen


def _agreement(entries: list[Entry], images: dict[str, Any]) -> dict[str, float]:
    """How often each precision of ResNet-50 chooses TensorFlow's class, over all images."""
    by_key = {entry.key: entry for entry in entries}
    if "tensorflow" not in by_key:
        return {}
    expected = by_key["tensorflow"].contestant.classes("resnet50", images["resnet50"])
    found = {}
    for key, name in (("engine-f32", "f32"), ("engine", "bf16"), ("engine-int8", "int8")):
        if key in by_key:
            classes = by_key[key].contestant.classes(by_key[key].models["resnet50"], images["resnet50"])
            found[f"{name} and TensorFlow's f32"] = agreement(classes, expected)
    return found


def _facts(options: argparse.Namespace, agreed: dict[str, float], network: str) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"Python": sys.version.split()[0]}
    for name in ("ensconce", "openvino"):
        versions[name] = importlib.metadata.version(name)
    for way in dict.fromkeys(WAYS[each].environment for each in options.others):
        asked = f"import importlib.metadata as m; print(m.version({way!r}))"
        python = options.environments / way / "bin" / "python"
        versions[way] = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "processor": names[0] if names else "unknown",
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "network": network,
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "rounds": options.rounds,
        "versions": versions,
        "agreement": agreed,
    }


def _tell(cell: Cell, entry: Entry, run: Run) -> None:
    rate = f"{run.rate:9.1f} requests/s  p50 {run.p50 * 1e3:8.2f} ms  p99 {run.p99 * 1e3:8.2f} ms"
    print(f"{cell!s:38} {entry.label:32} {rate}  ({run.requests} requests)", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds, batch 1, 1 and 16 at once, a third of the time")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each run of the tiny model; half as much again for ResNet-50")
    parser.add_argument("--model", nargs="+", choices=list(BF16), default=list(BF16))
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--concurrency", nargs="+", type=int)
    parser.add_argument("--only", nargs="+", choices=list(LABELS)[:8], help="of our own lines and TensorFlow's")
    parser.add_argument(
        "--others", nargs="*", choices=list(WAYS), default=["mlserver", "kserve", "litserve"], metavar="WAY",
        help=f"other servers, and ways to start them: {'; '.join(WAYS)}",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-serving", help="for models and results")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "bench", help="of the other servers")
    parser.add_argument("--tensorflow", type=Path, default=ROOT / "build/bench/importing/bin/python")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--plot", type=Path, help="write the picture there")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.seconds = options.seconds or (0.4 if options.quick else 1.2)
    options.batch = options.batch or ([1] if options.quick else [1, 8])
    options.concurrency = options.concurrency or ([1, 16] if options.quick else [1, 4, 16])
    return options


if __name__ == "__main__":
    main()
