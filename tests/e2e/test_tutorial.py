"""Every command of the tutorial, as it stands there but for the ports, in its order."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", (REPOSITORY / "docs" / "tutorial.md").read_text(), re.M | re.S)


@pytest.mark.timeout(180)
def test_the_tutorial(tmp_path: Path, environment: dict[str, str], elsewhere: Callable[[str], str]) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    # A failure in the middle must not leave servers behind, nor wait for them.
    clean = "trap 'ensconce down --host host 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true' ERR"
    script = "\n".join(["set -euo pipefail", clean, elsewhere("\n".join(blocks()))])
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            timeout=170,
        )
    said = (tmp_path / "stdout").read_text()
    assert done.returncode == 0, (tmp_path / "stderr").read_text() + said
    assert "sealed digits/1 under key model/digits/1" in said
    assert "accepted   digits.example.test replica" in said
    assert re.search(r"classes: \[\d, \d, \d, \d, \d\]", said)
    assert "replica-3" in said
    assert said.count("key.released") == 3
    assert (tmp_path / "host" / "models" / "digits" / "1" / "model.bin").read_bytes()[:8] == b"GRAFS_PF"
