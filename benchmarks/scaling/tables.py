"""What was measured and simulated, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.scaling.samples import Samples

from ensconce.enclave.sizes import Sizes

__all__ = ["epc", "head", "measured", "table"]

_GIB = 1 << 30
# Published sizes of the enclave page cache; where from is in docs/scaling.md.
_CACHES = {"128 GiB": 128, "256 GiB": 256, "512 GiB": 512, "1 TiB": 1024}
_MODELS = {
    "digits (0.4 MB)": 400_000,
    "ResNet-50, bf16 (94 MB)": 94_000_000,
    "440 MB": 440_000_000,
    "1.5 GB": 1_500_000_000,
    "7 GB": 7_000_000_000,
}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under a title."""
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def spread(values: Sequence[float], form: str) -> str:
    """Median, least and most."""
    middle, least, most = (format(each, form) for each in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def head(facts: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> str:
    """Where and when."""
    loads = ", ".join(f"{each['load']:.1f}" for each in rounds)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['processors']} processors, niceness {facts['nice']};"
        f" {len(rounds)} rounds, load before each {loads}; TCP: {facts['network']}; {facts['when']} UTC; {versions}.\n"
    )


def measured(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Medians of the rounds with their spread, and the 99th percentile of all values."""
    rows = []

    def row(name: str, path: Sequence[str], values: Any = lambda found: found, scale: float = 1e3) -> None:
        by_round = []
        for each in rounds:
            found: Any = each
            for key in path:
                found = found[key]
            by_round.append([scale * value for value in values(found)])
        every = Samples.of([value for values in by_round for value in values])
        medians = spread([statistics.median(values) for values in by_round], ".3g")
        rows.append([name, medians, f"{every.at(0.99):.3g}", str(len(every.values))])

    row("provisioning session, as the client waits, alone, ms", ["sessions", "wall"])
    row("processor time of the server's process, ms", ["sessions", "server"])
    row("of it until the client is asked to prove itself (handshake), ms", ["sessions", "handshake"])
    row("processor time of its verifiers, ms", ["sessions", "verifiers"])
    row("processor time of the client (its machine's), ms", ["sessions", "client"])
    for name in rounds[0]["steps"]:
        row(f"{name}, ms", ["steps", name])
    for size in rounds[0]["log"]:
        row(f"log: {size} entries on disk, ms", ["log", size], lambda found: [each["wall"] for each in found])
        row(f"log: {size} entries, of it the disk, ms", ["log", size], lambda found: [each["disk"] for each in found])
    row("log: opened, processor time, us an entry", ["log_opened", "seconds"], lambda value: [value], 1e6)
    row("gateway: a connection, processor time, us", ["gateway", "connection"], scale=1e6)
    row("gateway: a megabyte, processor time, us", ["gateway", "megabyte"], scale=1e6)
    row("gateway: an open connection, kB", ["gateway", "held"], lambda value: [value], 1e-3)
    for count in rounds[0]["gateway"]["reload"]:
        row(f"gateway: reload with {count} replicas, ms", ["gateway", "reload", count])
    row("gateway: replicas that its configuration takes", ["gateway", "replicas"], lambda value: [value], 1)
    for phase in rounds[0]["replica"]["start"][0]:
        row(f"replica's start: {phase}, s", ["replica", "start"], lambda v, phase=phase: [x[phase] for x in v], 1)
    row("replica's memory at most, MB", ["replica", "memory", "VmHWM"], lambda value: [value], 1e-6)
    for size in rounds[0]["inference"]:
        row(f"inference of {size} images, ms", ["inference", size], lambda found: [each["wall"] for each in found])
        row(f"inference of {size}, processor time / processors, ms", ["inference", size], _cpu)
    row("prediction through the gateway, ms", ["replica", "prediction"], lambda v: [each["wall"] for each in v])
    row("prediction, the replica's processor time / processors, ms", ["replica", "prediction"], _cpu)
    return table("Measured", ["", "median of rounds (least to most)", "p99 of all", "values"], rows)


def _cpu(found: Sequence[Mapping[str, float]]) -> list[float]:
    return [each["cpu"] for each in found]


def against(runs: Sequence[Mapping[str, Any]], simulated: Sequence[Sequence[float]]) -> str:
    """Real sessions at once beside simulated ones; ``simulated`` has the durations for each of the ``runs``."""
    rows = []
    for clients in dict.fromkeys(run["clients"] for run in runs):
        mine = [(run, waits) for run, waits in zip(runs, simulated, strict=True) if run["clients"] == clients]
        rates = [len(run["waited"]) / run["seconds"] for run, _ in mine]
        medians = [1e3 * statistics.median(run["waited"]) for run, _ in mine]
        # Closed: everybody waits all the time.
        expected = [clients / statistics.fmean(waits) for _, waits in mine]
        waited = [1e3 * statistics.median(waits) for _, waits in mine]
        rows.append(
            [
                str(clients),
                spread([100 * run["others"] for run, _ in mine], ".0f") + " %",
                spread(rates, ".0f"),
                spread(expected, ".0f"),
                spread([model / real for model, real in zip(expected, rates, strict=True)], ".2f"),
                spread(medians, ".0f"),
                spread(waited, ".0f"),
                spread([model / real for model, real in zip(waited, medians, strict=True)], ".2f"),
            ]
        )
    columns = ["clients at once", "others took", "sessions/s here", "simulated", "ratio"]
    columns += ["p50 here, ms", "simulated", "ratio"]
    return table("The simulator beside the real server, all of it on this machine", columns, rows)


def epc() -> str:
    """Enclave sizes as they are derived, and how many fit into the page caches that are sold."""
    rows = []
    for name, size in _MODELS.items():
        enclave = Sizes.of([size], 4).size
        rows.append([name, f"{enclave / _GIB:g} GiB", *(str(gib * _GIB // enclave) for gib in _CACHES.values())])
    columns = ["model", "enclave", *(f"replicas in {name}" for name in _CACHES)]
    return table("Replicas that an enclave page cache holds", columns, rows)
