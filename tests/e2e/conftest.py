"""What end-to-end tests share: the command, an environment of their own, and a look for processes left behind."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ensconce.demo.stage import processes_below

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def environment_in() -> Callable[[Path], dict[str, str]]:
    """Makes a user's environment: this environment's commands in the path, and a machine of its own in a folder.

    The cache of compiled images is shared with whoever runs the tests, because building one takes seconds.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return lambda folder: (
        os.environ
        | {
            "PATH": path,
            "ENSCONCE_SIMULATED_HOME": str(folder / "machine"),
            "NO_COLOR": "1",
        }
    )


@pytest.fixture
def environment(tmp_path: Path, environment_in: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """A user's environment, in the test's own folder."""
    return environment_in(tmp_path)


@pytest.fixture(scope="session")
def elsewhere(find_port: Callable[[], int]) -> Callable[[str], str]:
    """Moves a document's commands from the ports that it names, which others may have on this machine, to free ones."""
    defaults = {"grpc": "8500", "rest": "8501", "provisioning": "4433", "pccs": "8081"}  # of `ensconce init`

    def move(script: str) -> str:
        ports = {port: str(find_port()) for port in (*defaults.values(), "8502", "9500", "9501", "9502")}
        moved = re.sub(rf"\b({'|'.join(ports)})\b", lambda found: ports[found[0]], script)
        options = (f"--{name} 127.0.0.1:{ports[port]}" for name, port in defaults.items())
        return moved.replace("ensconce init owner", " ".join(["ensconce init owner", *options]))

    return move


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fail when a process still works in the test's folder at the end."""
    yield
    deadline = time.monotonic() + 30
    while (left := processes_below(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
