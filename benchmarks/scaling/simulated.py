"""The questions that are put to the simulator, and its answers as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.scaling.fleet import Herd, herd, renewals
from benchmarks.scaling.samples import Samples
from benchmarks.scaling.server import Costs, closed
from benchmarks.scaling.tables import spread, table
from benchmarks.scaling.traffic import Engine, Scaled, queue, rolling, scaled

__all__ = ["LARGE", "answers", "beside"]

LARGE = 100_000
"""Replicas of the largest fleet."""
_DEFAULT = (50.0, 500.0)
_STARTS = {"as measured": None, "10 s": 10.0, "30 s": 30.0, "120 s": 120.0}
_SPARES = (0, 4, 8)
_DAY = 86_400.0

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def beside(measured: Mapping[str, Any], processors: int, seed: int) -> list[list[float]]:
    """Durations of simulated sessions for each of the runs of so many at once, in their order."""
    costs = Costs.of(measured)
    runs = measured["at_once"]
    return [closed(costs, run["clients"], 20.0, processors, seed, min(run["others"], 0.9)) for run in runs]


def answers(
    measured: Mapping[str, Any],
    seed: int,
    tell: Callable[[str], None],
    *,
    quick: bool = False,
    count: int = 50_000,
    most: int = LARGE,
    each: Each = map,
) -> str:
    """All tables.

    Args:
        measured: every round's values together.
        seed: of all chance.
        tell: what is simulated next.
        quick: watch the autoscaler for a minute.
        count: requests of each queue.
        most: replicas of the largest fleet that starts at once.
        each: ``map``, or that of a pool of processes.
    """
    costs = Costs.of(measured)
    start = Samples.of([each["whole"] for each in measured["replica"]["start"]])
    asking = Samples.of([each["interpreter and its modules"] for each in measured["replica"]["start"]])
    engine = Engine.of(measured)
    # What a replica does for a prediction beside its inference; while others' are computed, but on the same processors.
    predictions = Samples.of([each["cpu"] for each in measured["replica"]["prediction"]])
    alone = max(0.0, predictions.at(0.5) - engine.by_rows[1].at(0.5))
    parts: list[tuple[str, Callable[[], str]]] = [
        ("power cut", lambda: _herds(costs, asking, seed, most, each)),
        ("renewals", lambda: _renewals(costs, seed, min(count, 3000))),
        ("queues", lambda: _queues(engine, alone, seed, count)),
        ("autoscaler", lambda: _scaled(engine, alone, start, seed, quick, each)),
        ("roll-out", lambda: _rolling(start, seed, most)),
    ]
    texts = []
    for name, text in parts:
        tell(f"simulating: {name}")
        texts.append(text())
    return "\n".join(texts)


@dataclass(frozen=True)
class _PowerCut:
    """One fleet, and how it comes back."""

    replicas: int
    within: float
    servers: int
    identity: tuple[float, float] | None = _DEFAULT
    in_place: bool = True


def _came_back(costs: Costs, asking: Samples, case: tuple[_PowerCut, int]) -> Herd:
    cut, seed = case
    return herd(
        costs, asking, cut.replicas, cut.servers,
        verifiers=1, seed=seed, spread=cut.within, identity=cut.identity, in_place=cut.in_place,
    )  # fmt: skip


def _herds(costs: Costs, asking: Samples, seed: int, most: int, each: Each) -> str:
    cuts = [
        _PowerCut(10, 60.0, 1),
        _PowerCut(1000, 60.0, 1),
        _PowerCut(1000, 1.0, 1),
        _PowerCut(1000, 1.0, 1, None),
        _PowerCut(1000, 1.0, 2, None),
        _PowerCut(10_000, 60.0, 1),
        _PowerCut(10_000, 60.0, 1, None),
        _PowerCut(10_000, 60.0, 2, None),
        _PowerCut(LARGE, 60.0, 1),
        *(_PowerCut(LARGE, 60.0, servers, None) for servers in (4, 8, 16, 32)),
        _PowerCut(LARGE, 60.0, 1, in_place=False),
        _PowerCut(LARGE, 60.0, 4, None, in_place=False),
    ]
    # The longest first, for these may be computed side by side.
    cases = [(cut, seed + n) for cut in reversed(cuts) for n in range(3 if cut.replicas <= 1000 else 1)]
    cases = [case for case in cases if case[0].replicas <= most]
    by_cut: dict[_PowerCut, list[Herd]] = {}
    for (cut, _), found in zip(cases, each(partial(_came_back, costs, asking), cases), strict=True):
        by_cut.setdefault(cut, []).append(found)
    rows = []
    for cut in (cut for cut in cuts if cut in by_cut):
        found = by_cut[cut]
        limit = "none" if cut.identity is None else f"{cut.identity[0]:.0f}/s, {cut.identity[1]:.0f} at once"
        rows.append(
            [
                f"{cut.replicas:,}",
                f"{cut.within:.0f} s",
                str(cut.servers),
                limit,
                "asks again" if cut.in_place else "starts anew",
                *(spread([getattr(one, what) for one in found], ".0f") for what in ("half", "most", "all")),
                spread([one.attempts for one in found], ".2f"),
                spread([100 * one.loop for one in found], ".0f") + " %",
            ]
        )
    columns = ["replicas", "back within", "servers", "`identity_rate`", "without an answer", "half, s", "99 %, s"]
    columns += ["all, s", "sessions a replica", "busiest loop"]
    return table("After a power cut: when replicas have their keys", columns, rows)


def _renewals(costs: Costs, seed: int, count: int) -> str:
    rows = []
    for replicas in (10, 1000, LARGE):
        for lifetime, name in ((3600.0, "1 h"), (_DAY / 4, "6 h"), (_DAY, "24 h"), (7 * _DAY, "7 d")):
            found = renewals(costs, replicas, lifetime, 1, verifiers=1, seed=seed, count=count)
            entries = found.rate * _DAY
            rows.append(
                [
                    f"{replicas:,}",
                    name,
                    f"{found.rate:.3g}",
                    f"{100 * found.loop:.2g} %",
                    f"{100 * found.verifiers:.2g} %",
                    f"{1e3 * found.p99:.0f}",
                    f"{100 * found.failed:.2g} %",
                    f"{entries:,.0f}",
                ]
            )
    columns = [
        "replicas",
        "certificate",
        "renewals/s",
        "loop",
        "verifier",
        "p99, ms",
        "asked again",
        "log entries a day",
    ]
    return table("A quiet day: one server, one verifier, renewals at two thirds of a certificate's life", columns, rows)


def _queues(engine: Engine, alone: float, seed: int, count: int) -> str:
    rows = []
    for bursty in (False, True):
        for load in (0.5, 0.7, 0.8, 0.9, 1.0):
            cells = []
            for merged in (False, True):
                found = queue(engine, load, merged=merged, bursty=bursty, seed=seed, alone=alone, count=count)
                cells += [f"{1e3 * found.p50:.0f}", f"{1e3 * found.p99:.0f}", f"{100 * found.refused:.2g} %"]
            rows.append(["bursts" if bursty else "Poisson", f"{load:.1f}", *cells, f"{found.rows:.2f}"])
    columns = ["arrivals", "load", "alone: p50", "p99", "refused", "merged: p50", "p99", "refused", "rows a batch"]
    rate = 1 / (alone + engine.by_rows[1].mean)
    title = f"Waiting at one replica, ms; load 1 is {rate:.0f} requests/s, at most {engine.limit} rows are merged"
    return table(title, columns, rows)


def _stepped(engine: Engine, alone: float, seed: int, after: float, case: tuple[float, Samples, int]) -> Scaled:
    age, start, spare = case
    return scaled(
        engine, start, replicas=8, spare=spare, before=0.6, factor=2.0, bound=0.1, target=0.02,
        seed=seed, most=32, age=age, alone=alone, after=after,
    )  # fmt: skip


def _scaled(engine: Engine, alone: float, start: Samples, seed: int, quick: bool, each: Each) -> str:
    named = [(age, name) for age in (300.0, 30.0) for name in _STARTS]
    starts = {name: start if seconds is None else Samples.of([seconds]) for name, seconds in _STARTS.items()}
    cases = [(age, starts[name], spare) for age, name in named for spare in _SPARES]
    found = iter(each(partial(_stepped, engine, alone, seed, 60.0 if quick else 300.0), cases))
    rows = []
    for age, name in named:
        cells = []
        for _, one in zip(_SPARES, found, strict=False):
            cells += [f"{1e3 * one.p99:.0f}", str(one.late), str(one.replicas)]
        rows.append([f"{age:.0f} s", name, *cells])
    columns = ["connections live", "start takes"]
    for spare in _SPARES:
        columns += [f"spare {spare}: p99, ms", "s above 100 ms", "replicas then"]
    title = "Load doubles within 10 s: 8 replicas at 0.6, `maxReplicas` 32, target 20 ms; the five minutes after"
    return table(title, columns, rows)


def _rolling(start: Samples, seed: int, most: int) -> str:
    rows = []
    for replicas in (size for size in (10, 1000, LARGE) if size <= most):
        for surge in sorted({1, replicas // 10}):
            cells = []
            for more in (0.0, 28.0):
                given = Samples.of([value + more for value in start.values])
                cells.append(_duration(rolling(given, replicas, surge, seed)))
            rows.append([f"{replicas:,}", f"{surge:,}", *cells])
    columns = ["replicas", "maxSurge", "start as measured", "start 28 s longer"]
    return table("How long a rolling update takes", columns, rows)


def _duration(seconds: float) -> str:
    for size, unit in ((_DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
