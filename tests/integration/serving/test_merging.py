from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ensconce.serving.fronts import FrontOptions, Fronts
from ensconce.serving.manager import ModelManager
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Signature, TensorSpec

FLOATS = TensorSpec("x:0", dtype_named("DT_FLOAT"), (-1, 1))


class Steady:
    """Takes as long for many rows as for one."""

    signatures: Mapping[str, Signature] = {
        DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, PREDICT_METHOD, {"x": FLOATS}, {"y": FLOATS})
    }

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, _name: str, inputs: Mapping[str, Any], _filter: Sequence[str] = ()) -> dict[str, Any]:
        self.rows.append(len(inputs["x"]))
        time.sleep(0.002)
        return {"y": inputs["x"]}


@pytest.mark.parametrize("merge", [True, False])
async def test_requests_are_merged_unless_that_is_turned_off(merge: bool) -> None:
    manager, model = ModelManager(), Steady()
    loaded = manager.add("m", 1, model)
    fronts = Fronts(manager, FrontOptions(merge=merge))
    for _ in range(5):
        one = np.zeros((1, 1), np.float32)
        await asyncio.gather(*(fronts.scheduler.predict(loaded, DEFAULT_SIGNATURE, {"x": one}) for _ in range(40)))
    assert (max(model.rows) > 1) == merge
    await fronts.stop(0)
