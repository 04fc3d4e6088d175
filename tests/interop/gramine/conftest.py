"""A machine with Gramine 1.9 and no SGX, an owner, and replicas under ``gramine-direct``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensconce.platform.simulated.pki import SimulatedVendor

sys.path.insert(0, str(Path(__file__).parent))
from gramine_attestation import mountable
from gramine_world import Owner, now, owner_in


@pytest.fixture(scope="session")
def gramine() -> Path:
    """The folder with Gramine's programs; they are on the PATH from here on."""
    prefix = os.environ.get("ENSCONCE_GRAMINE_PREFIX")
    if not prefix:
        pytest.skip("ENSCONCE_GRAMINE_PREFIX names no Gramine")
    found = [path for path in (Path(prefix), *sorted(Path(prefix).iterdir())) if (path / "bin/gramine-direct").exists()]
    if not found:
        pytest.skip(f"no bin/gramine-direct in {prefix} or in a folder of it")
    if (reason := mountable()) is not None:
        pytest.skip(reason)
    programs = found[0] / "bin"
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    return programs


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now())


@pytest.fixture
def owner(tmp_path: Path, gramine: Path, vendor: SimulatedVendor) -> Iterator[Owner]:
    with owner_in(tmp_path, vendor) as there:
        yield there
