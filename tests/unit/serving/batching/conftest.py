from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ensconce.tfserving.dtypes import dtype_of
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import Array

Compute = Callable[[Mapping[str, Array]], dict[str, Array]]


class Doubler:
    """A servable that doubles ``x``, row by row, tells which calls it got, and can be made to wait."""

    def __init__(
        self,
        compute: Compute | None = None,
        *,
        inputs: Mapping[str, tuple[int, ...] | None] | None = None,
        outputs: Mapping[str, tuple[int, ...] | None] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        def specs(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, TensorSpec]:
            kind = dtype_of(np.zeros(0, dtype))
            return {name: TensorSpec(name, kind, shape) for name, shape in sorted(shapes.items())}

        self._compute = compute or (lambda inputs: {"y": inputs["x"] * 2, "z": inputs["x"] + 1})
        self.signatures = {
            name: Signature(
                name, "tensorflow/serving/predict", specs(inputs or {"x": (-1, 2)}), specs(outputs or {"y": (-1, 2)})
            )
            for name in ("serving_default", "other")
        }
        self.failing: Callable[[Mapping[str, Array]], bool] = lambda inputs: False
        self.calls: list[dict[str, Array]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        self.calls.append(dict(inputs))
        self.begun.set()
        assert self.go.wait(30)
        if self.failing(inputs):
            raise ValueError("pixels 1 2 3")
        outputs = self._compute(inputs)
        return {name: outputs[name] for name in output_filter or outputs if name in outputs}

    @property
    def sizes(self) -> list[int]:
        """How many rows each call had."""
        return [len(next(iter(call.values()))) for call in self.calls]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only when it is told to."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def run_with_clock() -> Callable[[Any], Any]:
    """Runs a coroutine in a loop whose clock stands still."""

    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=Clock) as runner:
            return runner.run(main)

    return run


@pytest.fixture
def doubler() -> type[Doubler]:
    """Makes servables that double."""
    return Doubler
