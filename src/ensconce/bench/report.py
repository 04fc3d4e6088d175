"""What came of a measurement, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from ensconce import __version__
from ensconce.bench.histogram import Histogram
from ensconce.bench.run import processors
from ensconce.bench.schedule import Plan
from ensconce.bench.session import Measured
from ensconce.tfserving.dtypes import dtype_of
from ensconce.times import utc_text

__all__ = ["LATENCIES", "PERCENTILES", "Subject", "duration_text", "lines", "load_text", "report", "shapes_text"]

PERCENTILES: Final = ("50", "75", "90", "95", "99", "99.9", "99.99")

_LOOP_FULL: Final = 0.85
_PROCESS_FULL: Final = 0.9
_LATE_S: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was measured, as it was named.

    Attributes:
        addresses: where it was reached.
        protocol: see :data:`ensconce.bench.targets.opening.Protocol`.
        connection: ``attested``, ``tls``, ``mutual tls`` or ``plain``.
        model: its name.
        version: ``None`` for the newest.
        signature: empty for the default.
        batch: rows asked for in a request.
    """

    addresses: tuple[str, ...]
    protocol: str
    connection: str
    model: str
    version: int | None
    signature: str
    batch: int


def report(
    subject: Subject, plan: Plan, measured: Measured, *, began: float, cores: int | None = None
) -> dict[str, Any]:
    """Everything, as ``--json`` prints it. Times are in seconds.

    Args:
        subject: what was measured.
        plan: how.
        measured: what came of it.
        began: when, Unix time.
        cores: processors that the generator may use; those of this process when absent.
    """
    outcome = measured.outcome
    tally, seconds = outcome.tally, max(outcome.seconds, 1e-9)
    is_open = plan.rate is not None
    rows = next((spec.shape[0] for spec in measured.inputs.values() if spec.shape), subject.batch)
    found: dict[str, Any] = {
        "format": 1,
        "ensconce": __version__,
        "began": utc_text(began),
        "target": asdict(subject),
        "load": {"loop": "open" if is_open else "closed", **asdict(plan)},
        "inputs": {
            name: {"dtype": dtype_of(np.empty(0, spec.dtype)).label, "shape": list(spec.shape)}
            for name, spec in measured.inputs.items()
        },
        "batches": measured.batches,
        "request_bytes": measured.request_bytes,
        "answer_bytes": measured.answer_bytes,
        "interrupted": outcome.interrupted,
        "seconds": outcome.seconds,
        "requests": {"sent": tally.sent, "answered": tally.answered, "failed": tally.failed},
        "throughput": {"requests": tally.answered / seconds, "rows": tally.answered * rows / seconds},
        "latency": {"from": "due" if is_open else "sent", **_latencies(tally.latency)},
    }
    if is_open:
        found["latency_uncorrected"] = {"from": "sent", **_latencies(tally.service)}
    elif tally.answered:
        interval = max(tally.latency.percentile(50), 1)
        found["latency_expected_interval"] = {
            "from": "sent, or when it would have been",
            "interval": interval / 1e9,
            **_latencies(tally.latency.corrected(interval)),
        }
    found["replicas"] = dict(tally.replicas) if subject.connection == "attested" else None
    found["failures"] = [
        {"kind": kind, "count": count, "example": tally.examples[kind]} for kind, count in tally.failures.most_common()
    ]
    found["generator"] = _generator(measured, seconds, cores or processors(), is_open=is_open)
    timeline = tally.timeline
    found["timeline"] = {"period": timeline.period, "answered": timeline.answered, "failed": timeline.failed}
    return found


def _latencies(histogram: Histogram) -> dict[str, Any]:
    if not histogram.count:
        return {"count": 0}
    return {
        "count": histogram.count,
        "mean": histogram.total / histogram.count / 1e9,
        "min": histogram.smallest / 1e9,
        **{f"p{each}": histogram.percentile(float(each)) / 1e9 for each in PERCENTILES},
        "max": histogram.largest / 1e9,
        "histogram": [[upper / 1e9, count] for upper, count in histogram.buckets()],
    }


def _generator(measured: Measured, seconds: float, cores: int, *, is_open: bool) -> dict[str, Any]:
    effort, lateness = measured.outcome.effort, measured.outcome.tally.lateness
    loop, process = effort.loop / seconds, effort.process / seconds
    warnings = []
    if loop > _LOOP_FULL:
        warnings.append(f"its event loop was busy {loop:.0%} of the time: the server may be quicker than this says")
    elif process > _PROCESS_FULL * cores:
        warnings.append(f"it kept {process:.1f} of {cores} processors busy: the server may be quicker than this says")
    if is_open and (late := lateness.percentile(99) / 1e9) > _LATE_S:
        warnings.append(
            f"1 request in 100 went out {duration_text(late)} after it was due, or later: it was slow, or had as many "
            "under way as it may"
        )
    return {
        "processor_seconds": effort.process,
        "processors": process,
        "event_loop": loop,
        "lateness": _latencies(lateness) if is_open else None,
        "warnings": warnings,
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A report for people."""
    target, load, requests = found["target"], found["load"], found["requests"]
    version = "" if target["version"] is None else f" version {target['version']}"
    addresses = ", ".join(target["addresses"])
    yield f"{target['model']}{version} at {addresses} ({target['protocol']}, {target['connection']})"
    yield f"load        {load_text(load)}, {shapes_text(found)}"
    yield (
        f"requests    {requests['answered']} answered, {requests['failed']} failed in {found['seconds']:.2f} s"
        f"{' until it was interrupted' if found['interrupted'] else ''}; "
        f"{found['throughput']['requests']:.1f}/s, {found['throughput']['rows']:.1f} rows/s"
    )
    for key, title in LATENCIES.items():
        if key in found and found[key]["count"]:
            yield f"{title.format(**found[key]):<11} {_percentiles_text(found[key])}"
    if found["replicas"] is not None:
        total = max(sum(found["replicas"].values()), 1)
        for replica_id, count in sorted(found["replicas"].items()):
            yield f"replica     {replica_id}: {count} ({count / total:.1%})"
    for failure in found["failures"]:
        yield f"failed      {failure['count']} {failure['kind']}: {failure['example']}"
    generator = found["generator"]
    yield (
        f"generator   {generator['processor_seconds']:.2f} s of processor time "
        f"({generator['processors']:.2f} processors, event loop {generator['event_loop']:.0%} busy)"
    )
    for warning in generator["warnings"]:
        yield f"WARNING     the generator: {warning}"


LATENCIES: Final = {
    "latency": "latency",
    "latency_uncorrected": "uncorrected",
    "latency_expected_interval": "filled in",
}
"""The latencies of a report, with what they are called in its lines."""


def load_text(load: Mapping[str, Any]) -> str:
    """The load in a few words."""
    if load["loop"] == "closed":
        return f"closed loop, {load['concurrency']} callers" if load["concurrency"] > 1 else "closed loop, 1 caller"
    return f"open loop, {load['rate']:g}/s {load['arrivals']}, at most {load['concurrency']} under way"


def shapes_text(found: Mapping[str, Any]) -> str:
    """What went into a request."""
    shapes = (f"{name} {each['dtype']}{each['shape']}" for name, each in found["inputs"].items())
    return f"{', '.join(shapes)}, {found['request_bytes']} bytes a request"


def duration_text(seconds: float) -> str:
    """Three digits and a unit."""
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size), ("us", 1e-6))
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def _percentiles_text(latency: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {duration_text(latency[name])}" for name in ("p50", "p90", "p95", "p99", "p99.9", "max"))
