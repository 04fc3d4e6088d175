"""What end-to-end tests share: the command, an environment of their own, and a look for processes left behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensconce.demo.stage import processes_below

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's environment: this environment's commands in the path, a machine and caches of the test's own.

    The cache of compiled images is shared with whoever runs the tests, because building one takes seconds.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ENSCONCE_SIMULATED_HOME": str(tmp_path / "machine"), "NO_COLOR": "1"}


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fail when a process still works in the test's folder at the end."""
    yield
    deadline = time.monotonic() + 30
    while (left := processes_below(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
