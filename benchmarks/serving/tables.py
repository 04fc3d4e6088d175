"""What was measured, as text: tables for people, Markdown for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.serving.results import Cell, Ratio, Run, ratio

__all__ = ["comparisons", "from_json", "markdown", "text", "to_json"]

Runs = Mapping[str, Sequence[Run]]
OTHERS = ("mlserver", "kserve", "litserve", "bentoml")
_KINDS: tuple[tuple[str, Callable[[Run], float], float], ...] = (
    ("requests/s", lambda run: run.rate, 1),
    ("p50, ms", lambda run: run.p50, 1e3),
    ("p99, ms", lambda run: run.p99, 1e3),
)


def comparisons(runs: Runs) -> Iterator[tuple[str, Ratio]]:
    """The ratios that this is about, in this cell; larger is better for the one that is named first."""
    rate = {key: [run.rate for run in each] for key, each in runs.items()}
    pairs = [("deployed", "engine"), ("deployed-int8", "engine-int8"), ("plain", "engine")]
    pairs += [("deployed", "tensorflow"), ("deployed-int8", "tensorflow")]
    for this, that in pairs:
        if this in rate and that in rate:
            yield f"{this} / {that}, requests/s", ratio(rate[this], rate[that])
    others = [key for key in OTHERS if key in rate]
    if not others:
        return
    quickest = max(others, key=lambda key: statistics.median(rate[key]))
    tail = {key: [run.p99 for run in each] for key, each in runs.items()}
    steadiest = min(others, key=lambda key: statistics.median(tail[key]))
    for this in ("plain", "deployed"):
        if this in rate:
            yield f"{this} / best other ({quickest}), requests/s", ratio(rate[this], rate[quickest])
            yield f"best other ({steadiest}) / {this}, p99", ratio(tail[steadiest], tail[this])


def text(found: Mapping[Cell, Runs], labels: Mapping[str, str]) -> str:
    """For a terminal."""
    lines = []
    width = max(map(len, labels.values()), default=0)
    for cell, runs in found.items():
        lines += ["", str(cell), f"  {'':{width}} {'requests/s':>22} {'p50, ms':>22} {'p99, ms':>22}"]
        for key, each in runs.items():
            lines.append(f"  {labels[key]:{width}} " + " ".join(f"{_spread(each, *kind):>22}" for kind in _KINDS))
        lines += [f"  {name}: {found_ratio}" for name, found_ratio in comparisons(runs)]
    return "\n".join(lines)


def markdown(found: Mapping[Cell, Runs], labels: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """For the documentation."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['processor']}, {facts['processors']} processors, load {facts['load']:.1f} before"
    machine += f"; TCP: {facts['network']}"
    lines = [f"{machine}; {facts['when']} UTC; {facts['rounds']} rounds; {versions}.", ""]
    lines += [f"* Top-1 agreement, {name}: {value:.2%}" for name, value in facts["agreement"].items()]
    for model in dict.fromkeys(cell.model for cell in found):
        cells = [cell for cell in found if cell.model == model]
        keys = list(dict.fromkeys(key for cell in cells for key in found[cell]))
        for name, value, scale in _KINDS:
            lines += ["", f"**{model}: {name}** (median of the rounds, least and most)", ""]
            lines += ["| | " + " | ".join(f"batch {cell.batch}, {cell.concurrency} at once" for cell in cells) + " |"]
            lines += ["|---|" + "---|" * len(cells)]
            for key in keys:
                row = (_spread(found[cell].get(key, ()), name, value, scale) for cell in cells)
                lines.append(f"| {labels[key]} | " + " | ".join(row) + " |")
        lines += ["", f"**{model}: ratios** (median of the rounds' own ratios, least and most)", ""]
        lines += ["| | ratio |", "|---|---|"]
        for cell in cells:
            where = f"batch {cell.batch}, {cell.concurrency} at once"
            lines += [f"| {where}: {name} | {each} |" for name, each in comparisons(found[cell])]
    return "\n".join(lines) + "\n"


def to_json(found: Mapping[Cell, Runs], labels: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything."""
    cells = [
        {**vars(cell), "runs": {key: [run.to_json_object() for run in each] for key, each in runs.items()}}
        for cell, runs in found.items()
    ]
    return {"facts": dict(facts), "labels": dict(labels), "cells": cells}


def from_json(saved: Mapping[str, Any]) -> dict[Cell, dict[str, list[Run]]]:
    """What :func:`to_json` was given."""
    return {
        Cell(each["model"], each["batch"], each["concurrency"]): {
            key: [Run(**run) for run in runs] for key, runs in each["runs"].items()
        }
        for each in saved["cells"]
    }


def _spread(runs: Sequence[Run], _name: str, value: Callable[[Run], float], scale: float) -> str:
    if not runs:
        return ""
    values = [value(run) * scale for run in runs]
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
