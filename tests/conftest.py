"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of test vectors that others wrote; it is never part of the repository."""
    folder = Path(os.environ.get("ENSCONCE_VECTORS", Path(__file__).parents[2] / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no test vectors at {folder}; point ENSCONCE_VECTORS at them")
    return folder
