from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import numpy as np
import pytest

from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.batching.scheduler import BatchRecord, Scheduler
from ensconce.serving.manager import LoadedServable

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from ensconce.serving.engines.openvino import OpenVinoServable


@pytest.mark.parametrize("parameters", [None, Parameters(8, allowed_batch_sizes=(4, 8), max_enqueued_batches=400)])
async def test_digits_are_the_same_in_company(
    digits_files: dict[str, bytes], held_out: Any, parameters: Parameters | None
) -> None:
    servable = OpenVinoServable({name: bytearray(data) for name, data in digits_files.items()})
    records: list[BatchRecord] = []
    scheduler = Scheduler(parameters, observe=records.append)
    images, labels = held_out
    asked = [
        scheduler.predict(LoadedServable("digits", 1, servable), "", {"images": images[at : at + 1]})
        for at in range(200)
    ]
    answers = await asyncio.gather(*asked)
    await scheduler.close()
    assert max(record.requests for record in records) > 1
    alone = servable.predict("", {"images": images[:200]})
    np.testing.assert_allclose(
        np.concatenate([each["probabilities"] for each in answers]), alone["probabilities"], 1e-4, 1e-5
    )
    assert (np.concatenate([each["classes"] for each in answers]) == labels[:200]).mean() >= 0.98
