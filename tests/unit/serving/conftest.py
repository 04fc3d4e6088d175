from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import PREDICT_METHOD, Signature, TensorSpec

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture(scope="session")
def digits_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (DIGITS / "openvino").iterdir()}


@pytest.fixture(scope="session")
def held_out() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images as the model takes them (float32 [360,8,8,1]), and their labels."""
    with np.load(DIGITS / "heldout.npz") as file:
        return file["images"].astype(np.float32)[..., None], file["labels"]


class Counting:
    """Answers with its version, for each row where rows are given."""

    signatures: Mapping[str, Signature] = {
        "serving_default": Signature(
            "serving_default",
            PREDICT_METHOD,
            {"x": TensorSpec("x", dtype_named("DT_FLOAT"), (-1, 1))},
            {"version": TensorSpec("version", dtype_named("DT_INT64"), (-1,))},
        )
    }

    def __init__(self, version: int) -> None:
        self.version = version

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {"version": np.full(len(inputs["x"]), self.version) if inputs else self.version}


class Loading:
    """A loader that fails and waits as told, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Path]] = []
        self.broken: dict[tuple[str, int], list[Exception]] = {}
        self.held: dict[tuple[str, int], threading.Event] = {}
        self.on_load: Callable[[str, int], object] = lambda _name, _version: None

    def __call__(self, name: str, version: int, path: Path) -> Counting:
        self.calls.append((name, version, path))
        self.on_load(name, version)
        if (name, version) in self.held:
            assert self.held[name, version].wait(60)
        if self.broken.get((name, version)):
            raise self.broken[name, version].pop(0)
        return Counting(version)

    @property
    def loads(self) -> list[tuple[str, int]]:
        return [(name, version) for name, version, _ in self.calls]


@pytest.fixture
def loading() -> Loading:
    return Loading()
