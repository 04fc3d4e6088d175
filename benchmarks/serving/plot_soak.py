"""Memory over time as a picture: ``plot_soak.py SOAK.json PICTURE.png`` (needs matplotlib)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """One line."""
    saved = json.loads(Path(sys.argv[1]).read_text())
    figure, axis = plt.subplots(figsize=(10, 4))
    axis.plot([each / 60 for each in saved["seconds"]], [each / 2**20 for each in saved["bytes"]])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("minutes")
    axis.set_ylabel("RSS, MiB")
    axis.set_title(f"{saved['model']}: {saved['requests']:,} requests at full load")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
