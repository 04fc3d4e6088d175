"""``benchmarks`` is a folder of the repository, not part of the package: make it importable all the same."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
