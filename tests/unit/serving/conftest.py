from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture(scope="session")
def digits_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (DIGITS / "openvino").iterdir()}


@pytest.fixture(scope="session")
def held_out() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images as the model takes them (float32 [360,8,8,1]), and their labels."""
    with np.load(DIGITS / "heldout.npz") as file:
        return file["images"].astype(np.float32)[..., None], file["labels"]
