"""The results as a picture: ``plot.py RESULTS.json PICTURE.png`` (needs matplotlib, in an environment of its own)."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS = ("#08519c", "#3182bd", "#6baed6", "#9ecae1", "#756bb1", "#9e9ac8", "#bcbddc", "#dadaeb")
THEIRS = {
    "tensorflow": "#e6550d",
    "mlserver": "#fdae6b",
    "kserve": "#31a354",
    "litserve": "#a1d99b",
    "bentoml": "#bdbdbd",
}


def main() -> None:
    """A row for each model, rates at the left, p99 at the right; whiskers are the rounds' least and most."""
    saved = json.loads(Path(sys.argv[1]).read_text())
    cells, labels = saved["cells"], saved["labels"]
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    keys = list(dict.fromkeys(key for cell in cells for key in cell["runs"]))
    ours = iter(OURS)
    colours = {key: THEIRS.get(key) or next(ours, "#000000") for key in keys}
    figure, axes = plt.subplots(len(models), 2, figsize=(16, 4.6 * len(models)), squeeze=False)
    for row, model in zip(axes, models, strict=True):
        mine = [cell for cell in cells if cell["model"] == model]
        for axis, kind, scale, unit in ((row[0], "rate", 1, "requests/s"), (row[1], "p99", 1e3, "p99, ms")):
            _bars(axis, mine, keys, colours, labels, kind, scale)
            axis.set_yscale("log")
            axis.set_title(f"{model}: {unit}")
            axis.set_xticks(
                range(len(mine)), [f"batch {each['batch']}\n{each['concurrency']} at once" for each in mine]
            )
            axis.grid(axis="y", alpha=0.3)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    facts = saved["facts"]
    figure.suptitle(
        f"{facts['processor']}, {facts['processors']} processors, {facts['rounds']} rounds, {facts['when']}"
    )
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09 if len(models) > 1 else 0.17, 1, 1))
    figure.savefig(sys.argv[2], dpi=110)


def _bars(axis, cells, keys, colours, labels, kind, scale) -> None:
    present = [key for key in keys if any(key in cell["runs"] for cell in cells)]
    width = 0.85 / len(present)
    for index, key in enumerate(present):
        at, height, down, up = [], [], [], []
        for place, cell in enumerate(cells):
            values = [run[kind] * scale for run in cell["runs"].get(key, ())]
            if values:
                middle = statistics.median(values)
                at.append(place + (index - (len(present) - 1) / 2) * width)
                height.append(middle)
                down.append(middle - min(values))
                up.append(max(values) - middle)
        axis.bar(at, height, width, yerr=(down, up), color=colours[key], label=labels[key], error_kw={"lw": 0.8})


if __name__ == "__main__":
    main()
