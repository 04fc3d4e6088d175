"""What breaks first with 10, 1,000 and 100,000 replicas: service times measured on this machine, fleets simulated.

    python -m benchmarks.scaling [--quick] [--rounds N] [--from FILE] [--markdown FILE]

Everything is measured in every round, one after the other, so that a slow minute of the machine hits all alike. All
values go into one file, from which ``--from`` simulates again. Nothing is judged: there are numbers and their spread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.scaling import measured, simulated, tables
from benchmarks.serving.network import unpaced

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Measure, simulate, tell."""
    options = _options()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s  {text}", flush=True)

    if options.given is not None:
        saved = json.loads(options.given.read_text())
    else:
        saved = {"facts": measured.facts(unpaced()), "rounds": []}
        amounts = measured.Amounts()
        if options.quick:
            amounts = measured.Amounts(30, (1, 4), 1.0, 10, 3, 1, 10, 640)
        for number in range(options.rounds or (1 if options.quick else 3)):
            tell(f"round {number + 1}")
            with tempfile.TemporaryDirectory(prefix="round-", dir=options.work) as folder:
                os.environ["BENCHMARK_FOLDER"] = folder
                model = options.work / "model"
                saved["rounds"].append(measured.measure(Path(folder), model, amounts, tell))
        (options.work / "measured.json").write_text(json.dumps(saved))
    rounds = saved["rounds"]
    together = measured.together(rounds)
    beside = simulated.beside(together, saved["facts"]["processors"], options.seed)
    # Spawned, not forked: gRPC has threads here.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        fleet = 10_000 if options.quick else simulated.LARGE
        answers = simulated.answers(together, options.seed, tell, quick=options.quick, most=fleet, each=pool.map)
    parts = [tables.head(saved["facts"], rounds), tables.measured(rounds), tables.against(together["at_once"], beside)]
    text = "\n".join([*parts, tables.epc(), answers])
    (options.markdown or options.work / "results.md").write_text(text)
    print(text)
    tell(f"done; {options.work}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, and no fleet of 100,000 at once")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="given", type=Path, help="measured.json of an earlier run: simulate alone")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench-scaling", help="for models and results")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
