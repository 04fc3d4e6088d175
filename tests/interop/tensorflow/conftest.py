from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")


@pytest.fixture(scope="session")
def testdata(tf: Any) -> Path:
    """The test models of TensorFlow Serving's source, which is never part of the repository."""
    source = os.environ.get("ENSCONCE_TFSERVING_SOURCE")
    if not source:
        pytest.skip("no source of TensorFlow Serving: point ENSCONCE_TFSERVING_SOURCE at a checkout")
    folder = Path(source) / "tensorflow_serving" / "servables" / "tensorflow" / "testdata"
    if not folder.is_dir():
        pytest.skip(f"no test models in {folder}")
    return folder
